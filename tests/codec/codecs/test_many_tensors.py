"""Numbers in hundreds of small tensors take about as many bytes as in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.published.publication import PointHistory

RANK, WIDTH = 8, 256
LORA = {
    f"layers.{layer}.self_attn.{part}_proj.lora_{side}.weight": shape
    for layer in range(24)
    for part in "qkvo"
    for side, shape in (("A", (RANK, WIDTH)), ("B", (WIDTH, RANK)))
}
CODECS: dict[str, dict[str, Any]] = {
    "lattice": {"nmse": 0.3, "exact_below": 0, "fine_below": 1024},
    "topk": {"density": 0.1, "values": "float16"},
    "error_bounded": {"abs_bound": 3e-4},
    "signs": {},
}


def update() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: 1e-3 * rng.standard_normal(shape, np.float32)
        for name, shape in LORA.items()
    }


def as_one(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    return {"all": flat.reshape(-1, WIDTH)}


@pytest.mark.parametrize("name", CODECS)
def test_an_update_of_lora_adapters(name: str) -> None:
    codec = get_codec({**get_codec(name).config, **CODECS[name]})
    many = update()
    sizes = [
        len(codec.encode(arrays, CodecState(Layout.of(arrays)))[0])
        for arrays in (many, as_one(many))
    ]
    assert sizes[0] < 1.05 * sizes[1]


def test_the_change_of_a_published_model() -> None:
    sizes = []
    for arrays in (update(), as_one(update())):
        rng = np.random.default_rng(1)
        model = {
            name: np.float32(0.02) * rng.standard_normal(array.shape, np.float32)
            for name, array in arrays.items()
        }
        history = PointHistory.start(model, step_sigmas=3.0)
        held = history.current.digest
        history = history.publish({name: model[name] + arrays[name] for name in model})
        sizes.append(len(history.frame(held)))
    assert sizes[0] < 1.05 * sizes[1]
