"""Casts, signs and magnitudes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding.values import (
    from_bfloat16,
    magnitude_bounds,
    mean_magnitude,
    pack_signs,
    read_magnitudes,
    signed,
    to_bfloat16,
    to_float16,
    unpack_signs,
)

from ..library import Array

LARGEST = 3.3895313892515355e38
vectors = hnp.arrays(
    np.float32, st.integers(0, 40), elements=st.floats(-LARGEST, LARGEST, width=32)
)


@given(vectors)
def test_bfloat16_rounds_as_everybody_does(x: Array) -> None:
    expected = x.astype(ml_dtypes.bfloat16)
    assert to_bfloat16(x).tobytes() == expected.tobytes()
    assert from_bfloat16(to_bfloat16(x)).tobytes() == (
        expected.astype(np.float32).tobytes()
    )


@pytest.mark.parametrize("x", [3.4e38, -3.4e38])
def test_bfloat16_refuses_what_rounds_to_infinity(x: float) -> None:
    with pytest.raises(CodecError, match="bfloat16"):
        to_bfloat16(np.array([x], np.float32))


def test_float16_refuses_what_rounds_to_infinity() -> None:
    assert to_float16(np.array([65519], np.float32))[0] == 65504
    with pytest.raises(CodecError, match="float16"):
        to_float16(np.array([65520], np.float32))


@given(vectors)
def test_signs_and_bounds(x: Array) -> None:
    negative = unpack_signs(pack_signs(x), len(x))
    assert negative.tolist() == [bool(v < 0) for v in x]
    mean, largest = magnitude_bounds(x)
    assert mean == mean_magnitude(x) <= largest == max(map(abs, x), default=0)
    assert (np.abs(signed(negative, mean)) == mean).all()


def test_packed_signs_of_another_length_are_refused() -> None:
    with pytest.raises(CodecError, match="length"):
        unpack_signs(b"\0", 9)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_magnitudes_are_checked(bad: float) -> None:
    with pytest.raises(CodecError, match="magnitude"):
        read_magnitudes(np.array([1, bad], "<f4").tobytes())
