"""What torch apps share: a few steps of SGD on a node's part, and a test."""

from __future__ import annotations

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, Context, Message
from torch import nn
from torch.nn.functional import cross_entropy

from flwr_caesar.clients.fedcomloc import fedcomloc

from .app import Score, partition_of
from .data import Split

Build = Callable[[], nn.Module]


def train_loop(
    model: nn.Module,
    split: Split,
    msg: Message,
    context: Context,
    *,
    lr: float,
    steps: int = 10,
    batch: int = 32,
    momentum: float = 0.0,
) -> tuple[int, float]:
    """Take steps of SGD on a node's part; return its examples and the last loss."""
    index, count = partition_of(context)
    x, y = (torch.as_tensor(part[index::count]) for part in split[:2])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=momentum)
    optimizer = fedcomloc(optimizer, model, msg)
    model.train()
    for _ in range(int(msg.content["config"].get("local-steps", steps))):
        chosen = torch.randint(len(y), (batch,))
        optimizer.zero_grad()
        loss = cross_entropy(model(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
    return len(y), loss.item()


def load(model: nn.Module, arrays: ArrayRecord) -> nn.Module:
    """Return the model with the arrays of a message."""
    model.load_state_dict(arrays.to_torch_state_dict(), strict=True)
    return model


def accuracy_of(build: Build, split: Split, examples: int | None = None) -> Score:
    """Return what measures a model on the test part, or its first examples."""
    x, y = (torch.as_tensor(part[:examples]) for part in split[2:])

    def accuracy(arrays: ArrayRecord) -> float:
        model = load(build(), arrays).eval()
        with torch.no_grad():
            logits = model(x)
        if not torch.isfinite(logits).all():
            return float("nan")
        return (logits.argmax(1) == y).float().mean().item()

    return accuracy


def initial_of(build: Build) -> Callable[[int], ArrayRecord]:
    """Return what makes the first model of a seed."""

    def initial(seed: int) -> ArrayRecord:
        torch.manual_seed(seed)
        return ArrayRecord(build().state_dict())

    return initial
