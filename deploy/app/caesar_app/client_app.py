"""What a device does: train the model it is sent, on its own data."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import CompressionMod
from flwr_caesar.clients.fedcomloc import corrects, fedcomloc
from flwr_caesar.clients.placement import place
from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.clients.training import evaluate as test_model
from flwr_caesar.clients.training import train as train_model
from flwr_caesar.runner.spec import load_spec, weight_format
from flwr_caesar.tasks import Examples, load_partition
from flwr_caesar.tasks.models import build_model, exchanged_state, load_exchanged


def _initial(context: Context) -> ArrayRecord:
    """Return the arrays that the ServerApp starts from."""
    spec = load_spec(context.run_config)
    return _first_record(json.dumps(spec["model"]), spec["seed"])


@lru_cache(maxsize=1)
def _first_record(model: str, seed: int) -> ArrayRecord:
    """Return the initial arrays; simulated devices share a process, and these."""
    return _record(build_model(json.loads(model), seed))


def _record(model: torch.nn.Module) -> ArrayRecord:
    return state_to_record(exchanged_state(model))


def _labels(context: Context) -> list[int]:
    """Return how many examples of each label this device has."""
    spec = load_spec(context.run_config)
    counts = np.bincount(
        _examples(spec, context).y.ravel(), minlength=spec["data"]["num_classes"]
    )
    return [int(count) for count in counts]


# All there is about compression: what is below sees and returns plain arrays.
app = ClientApp(mods=[CompressionMod(initial=_initial, labels=_labels)])


def _examples(spec: dict[str, Any], context: Context) -> Examples:
    return load_partition(
        spec["data"],
        int(context.node_config["partition-id"]),
        int(context.node_config["num-partitions"]),
        spec["seed"],
    )


def _place(context: Context) -> str:
    """Return where to train; without a node config that says so, with one thread."""
    return place(context.node_config, threads=1)  # devices may share a machine's cores


def _model(spec: dict[str, Any], message: Message) -> torch.nn.Module:
    model = build_model(spec["model"], spec["seed"])
    load_exchanged(model, record_to_state(message.content.array_records["arrays"]))
    return model


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for some epochs or steps and return the model."""
    spec = load_spec(context.run_config)
    config: dict[str, Any] = dict(message.content.config_records["config"])
    examples = _examples(spec, context)
    device = _place(context)
    model = _model(spec, message)
    steps = config.get("local-steps")
    result = train_model(
        model,
        examples.x,
        examples.y,
        batch_size=config.get("batch-size", spec["data"]["batch_size"]),
        steps=steps,
        epochs=None if steps else config["local-epochs"],
        lr=spec["train"]["lr"],
        momentum=spec["train"]["momentum"],
        weight_decay=spec["train"]["weight_decay"],
        seed=spec["seed"] + config["server-round"],
        device=device,
        correct=partial(fedcomloc, message=message) if corrects(message) else None,
        **weight_format(spec),
    )
    metrics = MetricRecord({"num-examples": len(examples), "loss": result["loss"]})
    arrays = _record(model)
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model on the device's own data."""
    spec = load_spec(context.run_config)
    examples = _examples(spec, context)
    _place(context)
    loss, accuracy = test_model(
        _model(spec, message), examples.x, examples.y, **weight_format(spec)
    )
    metrics = MetricRecord(
        {"num-examples": len(examples), "loss": loss, "accuracy": accuracy}
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
