"""Numbers in hundreds of small tensors take about as many bytes as in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ..many_tensors import Arrays, adapters, as_one, published_size, size, update

RANK, WIDTH = 8, 256
CODECS: dict[str, dict[str, Any]] = {
    "lattice": {"nmse": 0.3, "exact_below": 0, "fine_below": 1024},
    "topk": {"density": 0.1, "values": "float16"},
    "error_bounded": {"abs_bound": 3e-4},
    "signs": {},
}


def lora() -> Arrays:
    return update(adapters(24, RANK, WIDTH), np.random.default_rng(0))


@pytest.mark.parametrize("name", CODECS)
def test_an_update_of_lora_adapters(name: str) -> None:
    config, many = {"id": name, **CODECS[name]}, lora()
    assert size(config, many) < 1.05 * size(config, as_one(many, WIDTH))


def test_the_change_of_a_published_model() -> None:
    many = lora()
    assert published_size(many) < 1.05 * published_size(as_one(many, WIDTH))
