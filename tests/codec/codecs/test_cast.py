"""`cast` keeps the bound it states."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.codecs.cast import CastCodec

from ..library import Array


@given(
    st.sampled_from(["float16", "bfloat16"]),
    hnp.arrays(
        np.float32, st.integers(1, 50), elements=st.floats(-65504, 65504, width=32)
    ),
)
def test_the_bound_holds_on_every_element(dtype: str, x: Array) -> None:
    codec = CastCodec(dtype=dtype, exact_below=4)
    decoded, _ = codec.decode(codec.encode({"x": x})[0])
    error = np.abs(x.astype(np.float64) - decoded["x"])
    assert (error <= codec.error_bound({"x": x})["x"]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tensors_of_the_narrow_type_are_exact(dtype: str) -> None:
    narrow = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x = np.random.default_rng(0).standard_normal((50, 50)).astype(narrow)
    codec = CastCodec(dtype=dtype)
    decoded, _ = codec.decode(codec.encode({"x": x})[0])
    assert decoded["x"].tobytes() == x.tobytes()


def test_float16_refuses_what_does_not_fit() -> None:
    with pytest.raises(CodecError, match="float16"):
        CastCodec().encode({"x": np.full(2000, 7e4, np.float32)})


def test_at_most_16_bits_an_element() -> None:
    x = np.random.default_rng(0).integers(0, 2**16, 50_000).astype(np.uint16)
    x = x[(x & 0x7C00) != 0x7C00].view(np.float16).astype(np.float32)
    frame, _ = CastCodec().encode({"x": x})
    assert len(frame) <= 2 * x.size + 300
