"""`topk` sends exactly the largest elements of each tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, ErrorFeedback, inspect_frame
from flwr_caesar.codec.codecs.topk import TopKCodec
from flwr_caesar.codec.contract.layout import FLOAT_DTYPES

from ..strategies import Array, arrays, bits, gaussian_model, models

narrow = st.sampled_from(["float16", "bfloat16", "float32", "int16", "bool"])
densities = st.sampled_from([0.001, 0.1, 0.34, 0.5, 0.9, 1.0])


@given(models(arrays(narrow)), densities, st.sampled_from([0, 1, 7, 16]))
def test_the_largest_are_exact_and_the_rest_zero(
    model: dict[str, Array], density: float, exact_below: int
) -> None:
    codec = TopKCodec(density=density, exact_below=exact_below)
    decoded, _ = codec.decode(codec.encode(model)[0])
    assert list(decoded) == list(model)
    for name, array in model.items():
        got = decoded[name]
        assert got.flags.writeable
        is_float = array.dtype.name in FLOAT_DTYPES
        if not is_float or array.size < max(exact_below, 1):
            assert bits(got) == bits(array)
            continue
        assert (got.dtype.name, got.shape) == (array.dtype.name, array.shape)
        x = array.reshape(-1).astype(np.float64)
        y = got.reshape(-1).astype(np.float64)
        k = min(array.size, math.ceil(density * array.size))
        assert np.count_nonzero(y) == min(k, np.count_nonzero(x))
        assert ((y == x) | (y == 0)).all()
        dropped = np.abs(x[(y == 0) & (x != 0)])
        if len(dropped):
            assert np.abs(y[y != 0]).min() >= dropped.max()


def test_exactly_the_ceiling_is_kept_of_each_tensor() -> None:
    model = gaussian_model()
    codec = TopKCodec(density=0.013)
    decoded, _ = codec.decode(codec.encode(model)[0])
    for name in ("conv.weight", "odd", "half", "brain", "double"):
        size = model[name].size
        assert np.count_nonzero(decoded[name]) == math.ceil(0.013 * size)
    kept = decoded["double"][decoded["double"] != 0]
    assert np.isin(kept, model["double"].astype(np.float32)).all()


def test_half_precision_values_are_rounded_to_nearest() -> None:
    x = np.linspace(-3, 3, 2001, dtype=np.float32)
    codec = TopKCodec(density=1, values="float16")
    decoded, _ = codec.decode(codec.encode({"x": x})[0])
    np.testing.assert_array_equal(decoded["x"], x.astype(np.float16))


@pytest.mark.parametrize("scale", [1e-38, 1e-9, 1e-4, 65520, 70_000, 1e30, 3.4e38])
def test_half_precision_reaches_every_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    x = {
        "far": (scale * rng.uniform(0.1, 1, 2000)).astype(np.float32),
        "usual": rng.normal(size=2000).astype(np.float32),
    }
    codec = TopKCodec(density=0.1, values="float16")
    frame, told, _ = codec.encode_decoded(x)
    decoded, _ = codec.decode(frame)
    for name, array in x.items():
        assert bits(told[name]) == bits(decoded[name])
        kept = decoded[name] != 0
        assert np.count_nonzero(kept) == 200
        error = np.abs(decoded[name][kept] / array[kept] - 1)
        assert error.max() <= 2.0**-10
    usual, _ = codec.decode(codec.encode({"usual": x["usual"]})[0])
    assert bits(usual["usual"]) == bits(decoded["usual"])


def test_usual_scales_are_sent_as_ever_and_zeros_not_at_all() -> None:
    x = {"w": np.full(2000, 0.01, np.float32), "frozen": np.zeros(5000, np.float32)}
    sections = inspect_frame(TopKCodec(values="float16").encode(x)[0]).sections
    assert set(sections) == {"TABL", "POS", "VAL"}
    assert sections["VAL"] == 2 * 20


def test_what_float16_cannot_hold_arrives_under_error_feedback() -> None:
    """Two devices count, one of them up to more than 65,504 a round."""
    codec = ErrorFeedback(TopKCodec(density=0.05, values="float16"))
    for step in (70_000.0, 1e-12):
        total, state = 0.0, None
        for _ in range(4):
            x = np.zeros((64, 32), np.float32)
            x[0, 1] = step
            frame, after = codec.encode({"x": x}, state)
            total += float(codec.decode(frame, state)[0]["x"][0, 1])
            state = after
        assert total == pytest.approx(4 * step, rel=1e-3)


@pytest.mark.parametrize(
    "parameters",
    [{"density": 0}, {"density": 1.01}, {"density": math.nan}, {"values": "int8"}],
)
def test_parameters_out_of_range_are_named(parameters: dict[str, object]) -> None:
    (name,) = parameters
    with pytest.raises(CodecError, match=f"topk: {name} must be"):
        TopKCodec(**parameters)  # type: ignore[arg-type]
