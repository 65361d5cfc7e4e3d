"""A language model of Hugging Face's form, and LoRA adapters for it."""

import os
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ByT5Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from caesar_flowertune.data import pretraining_text, windows

BUILT_IN = "built-in"


def load(base_model: str, rank: int) -> tuple[torch.nn.Module, AutoTokenizer]:
    """Return the frozen model in bfloat16 with new adapters, and its tokenizer.

    Parameters
    ----------
    base_model : str
        A folder or a name on the Hugging Face hub, or ``"built-in"``: a Llama of 0.1
        million parameters that reads bytes, trained once a machine.
    rank : int
        Of the adapters.
    """
    name = built_in() if base_model == BUILT_IN else base_model
    base = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(name)
    torch.manual_seed(0)
    adapters = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
    )
    # The adapters stay in bfloat16: that is what travels.
    return get_peft_model(base, adapters, autocast_adapter_dtype=False), tokenizer


def built_in(steps: int = 150) -> str:
    """Return the folder of the built-in model, which is made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "caesar-flowertune" / f"llama-{steps}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = tempfile.mkdtemp(dir=folder.parent)
        _train_base(steps, new)
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.exists():  # else another process was quicker
                raise
    return str(folder)


def _train_base(steps: int, folder: str) -> None:
    tokenizer = ByT5Tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    x = windows(pretraining_text(), tokenizer)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (16,))]
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
