"""A reader written from the documents alone decodes what our writers write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec.caesar_model import with_stale
from flwr_caesar.codec.exact import split_exact
from flwr_caesar.codec.vector import gather

from . import plain_codecs
from .library import CONFIGS, name_of, small, small_model

DOCUMENTS = Path(__file__).parents[2] / "docs" / "wire"


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_second_reader_agrees(config: dict[str, Any], seed: int) -> None:
    codec = small(config)
    frame, state = codec.encode(small_model(seed))
    decoded, _ = codec.decode(frame)
    exact, lossy = split_exact(
        state.layout,
        16,
        exclude_1d=config["id"] == "prune" and "exclude_1d" not in config,
    )
    content, vector = plain_codecs.decode(frame)
    for spec in exact:
        assert content[spec.name] == decoded[spec.name].tobytes()
    ours = gather(decoded, lossy)
    if config["id"] == "rotated":
        np.testing.assert_allclose(vector, ours, atol=1e-5)
    else:
        np.testing.assert_array_equal(np.array(vector, np.float32), ours)


def test_the_second_reader_recovers_from_a_stale_model() -> None:
    codec = small({"id": "caesar_model"})
    model, stale = small_model(0), small_model(1)
    frame, state = codec.encode(model)
    decoded, _ = codec.decode(frame, with_stale(state.layout, stale))
    _, lossy = split_exact(state.layout, 16)
    _, vector = plain_codecs.decode(frame, gather(stale, lossy).tolist())
    np.testing.assert_array_equal(np.array(vector, np.float32), gather(decoded, lossy))


def test_every_codec_has_a_description() -> None:
    described = {path.stem for path in DOCUMENTS.glob("*.md")}
    assert {config["id"] for config in CONFIGS} <= described
