"""LoRA adapters: hundreds of small tensors, and the same numbers as one."""

from __future__ import annotations

from typing import Any

import numpy as np

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.published.publication import PointHistory

Arrays = dict[str, np.ndarray[Any, Any]]


def adapters(layers: int, rank: int, width: int) -> dict[str, tuple[int, int]]:
    """Return names and shapes of LoRA adapters of four matrices a layer."""
    return {
        f"model.layers.{layer}.self_attn.{part}_proj.lora_{side}.weight": shape
        for layer in range(layers)
        for part in "qkvo"
        for side, shape in (("A", (rank, width)), ("B", (width, rank)))
    }


def update(shapes: dict[str, tuple[int, int]], rng: np.random.Generator) -> Arrays:
    """Return Gaussian numbers."""
    return {
        name: 1e-3 * rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


def as_one(arrays: Arrays, width: int) -> Arrays:
    """Return the same numbers as one tensor."""
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    return {"all": flat.reshape(-1, width)}


def size(config: dict[str, Any], arrays: Arrays) -> int:
    """Return the bytes of a codec's first frame of an update."""
    codec = get_codec({**get_codec(config["id"]).config, **config})
    return len(codec.encode(arrays, CodecState(Layout.of(arrays)))[0])


def published_size(arrays: Arrays) -> int:
    """Return the bytes of a published model's change by an update."""
    rng = np.random.default_rng(1)
    model = {
        n: np.float32(0.02) * rng.standard_normal(a.shape, np.float32)
        for n, a in arrays.items()
    }
    history = PointHistory.start(model, step_sigmas=3.0)
    held = history.current.digest
    history = history.publish({n: model[n] + arrays[n] for n in model})
    return len(history.frame(held))
