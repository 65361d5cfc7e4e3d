"""Error feedback conserves what goes in."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecState, ErrorFeedback, get_codec
from flwr_caesar.codec.codecs.dense import DenseCodec
from flwr_caesar.codec.codecs.topk import TopKCodec

from ..samples import CONFIGS
from ..strategies import Array, gaussian_model

CONTRACTIONS = [
    {**config, "exact_below": 10}
    for config in CONFIGS
    if config["id"] not in ("dense", "qsgd", "rotated")
]


def inputs(rng: np.random.Generator, dtype: type[Any]) -> dict[str, Array]:
    scale = 10.0 ** rng.integers(-3, 2)
    return {
        "w": (scale * rng.normal(size=(40, 11))).astype(dtype),
        "small": rng.normal(size=5).astype(dtype),
        "steps": rng.integers(0, 9, 3),
    }


@settings(max_examples=4)
@given(
    st.integers(0, 2**32),
    st.sampled_from([np.float32, np.float64, np.float16, ml_dtypes.bfloat16]),
)
@pytest.mark.parametrize("config", CONTRACTIONS, ids=json.dumps)
def test_what_was_sent_and_the_residual_sum_to_the_input(
    config: dict[str, Any], seed: int, dtype: type[Any]
) -> None:
    rng = np.random.default_rng(seed)
    feedback = ErrorFeedback(get_codec(config))
    state = receiver = None
    given_sum: dict[str, Array] = {}
    sent_sum: dict[str, Array] = {}
    largest = 0.0
    for _ in range(20):
        model = inputs(rng, dtype)
        frame, state = feedback.encode(model, state)
        sent, receiver = feedback.decode(frame, receiver)
        for name in ("w", "small"):
            given_sum[name] = given_sum.get(name, 0.0) + model[name].astype(np.float64)
            sent_sum[name] = sent_sum.get(name, 0.0) + sent[name].astype(np.float64)
            largest = max(largest, float(np.abs(given_sum[name]).max()))
        np.testing.assert_array_equal(sent["steps"], model["steps"])
    assert state is not None
    assert state.private.keys() == {"w", "small"}
    for name, residual in state.private.items():
        assert residual.dtype == np.float32
        np.testing.assert_allclose(
            sent_sum[name] + residual, given_sum[name], rtol=0, atol=1e-6 * largest
        )


def test_a_lossless_codec_leaves_nothing() -> None:
    _, state = ErrorFeedback(DenseCodec()).encode(gaussian_model())
    assert all((residual == 0).all() for residual in state.private.values())


def test_frames_are_the_inner_codecs() -> None:
    codec = TopKCodec(density=0.1)
    model = gaussian_model()
    frame, _ = ErrorFeedback(codec).encode(model)
    assert frame == codec.encode(model)[0]
    assert ErrorFeedback(codec).config == codec.config


def test_the_callers_arrays_and_state_stay() -> None:
    feedback = ErrorFeedback(TopKCodec(density=0.1))
    model = gaussian_model()
    _, state = feedback.encode(model)
    copies = {name: array.copy() for name, array in model.items()}
    residual = {name: array.copy() for name, array in state.private.items()}
    feedback.encode(model, state)
    for name, array in copies.items():
        assert array.tobytes() == model[name].tobytes()
    for name, array in residual.items():
        assert array.tobytes() == state.private[name].tobytes()


def test_a_new_layout_keeps_the_residuals_that_still_fit() -> None:
    feedback = ErrorFeedback(TopKCodec(density=0.001, exact_below=0))
    old = {
        "same": np.ones(100, np.float32),
        "reshaped": np.ones(100, np.float32),
        "counted": np.ones(100, np.float32),
    }
    _, state = feedback.encode(old)
    new = {
        "same": np.zeros(100, np.float32),
        "reshaped": np.zeros((10, 10), np.float32),
        "counted": np.zeros(100, np.int32),
    }
    frame, after = feedback.encode(new, state)
    sent, _ = feedback.decode(frame)
    assert np.count_nonzero(sent["same"]) == 1
    assert np.count_nonzero(after.private["same"]) == 98
    assert not after.private["reshaped"].any()
    assert not sent["counted"].any()


@pytest.mark.parametrize("known", [True, False])
def test_decoding_is_the_inner_codecs(known: bool) -> None:
    feedback = ErrorFeedback(TopKCodec(density=0.1))
    frame, state = feedback.encode(gaussian_model())
    expected = CodecState(state.layout) if known else None
    a, _ = feedback.decode(frame, expected, max_bytes=1 << 20)
    b, _ = feedback.codec.decode(frame, expected)
    assert all(a[name].tobytes() == b[name].tobytes() for name in b)
