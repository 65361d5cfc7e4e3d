"""`topk` sends exactly the largest elements of each tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.layout import FLOAT_DTYPES
from flwr_caesar.codec.topk import TopK

from .strategies import Array, arrays, bits, gaussian_model, models

narrow = st.sampled_from(["float16", "bfloat16", "float32", "int16", "bool"])
densities = st.sampled_from([0.001, 0.1, 0.34, 0.5, 0.9, 1.0])


@given(models(arrays(narrow)), densities, st.sampled_from([0, 1, 7, 16]))
def test_the_largest_are_exact_and_the_rest_zero(
    model: dict[str, Array], density: float, exact_below: int
) -> None:
    codec = TopK(density=density, exact_below=exact_below)
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
    codec = TopK(density=0.013)
    decoded, _ = codec.decode(codec.encode(model)[0])
    for name in ("conv.weight", "odd", "half", "brain", "double"):
        size = model[name].size
        assert np.count_nonzero(decoded[name]) == math.ceil(0.013 * size)
    kept = decoded["double"][decoded["double"] != 0]
    assert np.isin(kept, model["double"].astype(np.float32)).all()


def test_half_precision_values_are_rounded_to_nearest() -> None:
    x = np.linspace(-3, 3, 2001, dtype=np.float32)
    codec = TopK(density=1, values="float16")
    decoded, _ = codec.decode(codec.encode({"x": x})[0])
    np.testing.assert_array_equal(decoded["x"], x.astype(np.float16))


@pytest.mark.parametrize("value", [65520, -1e30])
def test_values_beyond_half_precision_are_refused(value: float) -> None:
    x = np.full(2000, value, np.float32)
    with pytest.raises(CodecError, match="range of float16"):
        TopK(values="float16").encode({"x": x})
    TopK(values="float32").encode({"x": x})


@pytest.mark.parametrize(
    "parameters",
    [{"density": 0}, {"density": 1.01}, {"density": math.nan}, {"values": "int8"}],
)
def test_parameters_out_of_range_are_named(parameters: dict[str, object]) -> None:
    (name,) = parameters
    with pytest.raises(CodecError, match=f"topk: {name} must be"):
        TopK(**parameters)  # type: ignore[arg-type]
