"""What a device does."""

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import compression_mod
from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from caesar_flowertune.data import load_file, load_partition, split, windows
from caesar_flowertune.model import load

# All there is of compression on the device: below are plain arrays.
app = ClientApp(mods=[compression_mod])


def _text(context: Context) -> str:
    """Return a device's text: its share in a simulation, else its file."""
    config = context.node_config
    if "partition-id" in config:
        return load_partition(
            int(config["partition-id"]), int(config["num-partitions"])
        )
    return load_file(str(config["data-path"]))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the adapters that came, on this device's text, and return them."""
    config = context.run_config
    model, tokenizer = load(str(config["base-model"]), int(config["rank"]))
    # Flower's own conversions refuse bfloat16; these do not.
    set_peft_model_state_dict(model, record_to_state(message.content["arrays"]))
    x, _ = split(windows(_text(context), tokenizer))
    adapters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=float(config["learning-rate"]))
    # A process that is new for each message would draw the same examples each time.
    drawn = torch.Generator().manual_seed(message.content["config"]["server-round"])
    size = (int(config["batch-size"]),)
    model.train()
    losses = []
    for _ in range(int(config["local-steps"])):
        batch = x[torch.randint(len(x), size, generator=drawn)]
        optimizer.zero_grad()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    content = RecordDict(
        {
            "arrays": state_to_record(get_peft_model_state_dict(model)),
            "metrics": MetricRecord(
                {"num-examples": len(x), "loss": sum(losses) / len(losses)}
            ),
        }
    )
    return Message(content, reply_to=message)
