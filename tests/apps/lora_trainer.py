"""LoRA by peft on a transformer in bfloat16, trained by Hugging Face's Trainer.

The transformer is tiny and made up here; only its adapters and its head travel.
"""

import copy
import tempfile
from functools import cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from .app import App, partition_of, reply_to
from .data import topics


@cache
def backbone() -> Any:
    """Return a BERT of one layer that was trained a little on other texts."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2000,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, y = (torch.as_tensor(part[-600:]) for part in topics()[:2])
    for _ in range(45):
        optimizer.zero_grad()
        model(input_ids=x, labels=y).loss.backward()
        optimizer.step()
    return model.to(torch.bfloat16)


def with_adapters() -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=16,
        lora_alpha=32,
        target_modules=["query", "value", "dense"],
    )
    model = get_peft_model(copy.deepcopy(backbone()), config)
    for parameter in model.parameters():
        if parameter.requires_grad:  # what travels, which Flower wants in float32
            parameter.data = parameter.data.float()
    return model


def load(model: Any, arrays: ArrayRecord) -> Any:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, arrays.to_torch_state_dict())
    return model


class Texts(torch.utils.data.Dataset):
    def __init__(self, index: int, count: int) -> None:
        x, y = topics()[:2]
        self.x, self.y = x[:-600][index::count], y[:-600][index::count]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {"input_ids": self.x[item], "labels": self.y[item]}


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        from peft import get_peft_model_state_dict
        from transformers import PrinterCallback, Trainer, TrainingArguments

        model = load(with_adapters(), msg.content["arrays"])
        texts = Texts(*partition_of(context))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=10,
                per_device_train_batch_size=16,
                learning_rate=5e-3,
                lr_scheduler_type="constant",
                use_cpu=True,
                bf16=True,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                log_level="error",
            )
            trainer = Trainer(model, arguments, train_dataset=texts)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        state = get_peft_model_state_dict(model)
        return reply_to(msg, state, examples=len(texts))

    return app


def initial_arrays(seed: int) -> ArrayRecord:
    from peft import get_peft_model_state_dict

    backbone()  # whose training draws from the same generator
    torch.manual_seed(seed)
    return ArrayRecord(get_peft_model_state_dict(with_adapters()))


def accuracy(arrays: ArrayRecord) -> float:
    model = load(with_adapters(), arrays).eval()
    x, y = (torch.as_tensor(part) for part in topics()[2:])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=x).logits
    return (logits.argmax(1) == y).float().mean().item()


APP = App(
    "LoRA (peft) by Hugging Face Trainer, bf16",
    client_app,
    initial_arrays,
    accuracy,
    rounds=2,
    nodes=2,
    tested=400,
    needs=("transformers", "peft"),
)
