"""A reader written from the document alone decodes what our writers write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import list_codecs
from flwr_caesar.codec.codecs.caesar_model import with_stale
from flwr_caesar.codec.contract.exact import split_exact
from flwr_caesar.codec.contract.vector import gather

from . import plain_codecs
from .library import CONFIGS, name_of, small, small_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-format.md"
STATEFUL = [
    {"id": "correlation", "density": 0.3},
    {"id": "correlation", "density": 0.1, "memory": False},
    {"id": "error_bounded", "rel": 0.02},
    {"id": "error_bounded", "rel": 0.02, "predictor": "all"},
    {"id": "lattice", "rate": 2.0},
    {"id": "lattice", "exact_below": 0, "fine_below": 64},
    {"id": "topk", "density": 0.1},
]


@pytest.mark.parametrize("config", [*CONFIGS, *STATEFUL], ids=name_of)
def test_the_second_reader_agrees(config: dict[str, Any]) -> None:
    codec = small(config)
    sender = receiver = theirs = None
    for seed in (0, 1, 1):
        frame, sender = codec.encode(small_model(seed), sender)
        decoded, receiver = codec.decode(frame, receiver)
        read, theirs = plain_codecs.decode(frame, theirs)
        assert (theirs.version, theirs.digest) == (receiver.version, receiver.digest)
        for tensor, data in read:
            ours = decoded[tensor.name]
            if config["id"] == "rotated" and tensor.dtype == "float32":
                found = np.frombuffer(data, "<f4").reshape(tensor.shape)
                np.testing.assert_allclose(found, ours, atol=1e-5)
            else:
                assert data == ours.tobytes(), tensor.name


def test_the_second_reader_recovers_from_a_stale_model() -> None:
    codec = small({"id": "caesar_model"})
    model, stale = small_model(0), small_model(1)
    frame, state = codec.encode(model)
    decoded, _ = codec.decode(frame, with_stale(state.layout, stale))
    _, lossy = split_exact(state.layout, 16)
    read, _ = plain_codecs.decode(frame, None, gather(stale, lossy).tolist())
    for tensor, data in read:
        assert data == decoded[tensor.name].tobytes()


def test_every_codec_has_a_section() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert set(list_codecs()) <= set(re.findall(r"^### `(\w+)`$", text, re.M))
