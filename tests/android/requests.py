"""What a server asks of a phone, as the pure sessions make it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.sync.conversation_server import Server
from tests.sync.conversations_of_one_device import topk

WIDTH, HIDDEN, CLASSES = 6, 5, 3
SIZE = 22
BATCH = 4


def examples() -> tuple[Any, Any]:
    """Return features and labels of which a small network learns something."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, SIZE)
    features = rng.normal(size=(SIZE, WIDTH)) + labels[:, None]
    return features.astype(np.float32), labels


def model() -> dict[str, Any]:
    """Return a network of two layers, as torch has it."""
    rng = np.random.default_rng(0)
    shapes = [(HIDDEN, WIDTH), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)]
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }


def new_server() -> Server:
    """Return a server that has the model, and has asked nobody yet."""
    return Server(model(), topk(), "phone")
