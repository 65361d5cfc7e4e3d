"""What writers of `lattice` by a step and of `topk` send, from the wire format's page.

Not for speed: one element at a time, in Python's own numbers, rounded to float32 where
the page says so. Other implementations are compared with these rules, so they are held
against the codecs here.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import get_codec


def f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def lattice_step(step: float) -> tuple[int, int]:
    """Return `m` and `e` of a step."""
    exponent = math.floor(math.log2(step)) - 2
    multiple = round(step / 2.0**exponent)
    return (4, exponent + 1) if multiple == 8 else (multiple, exponent)


def lattice_value(x: float, step: float, *, fine: bool) -> float:
    """Return what an element is decoded to."""
    multiple, exponent = lattice_step(step)
    exponent -= 6 if fine else 0
    own = f32(multiple * 2.0**exponent)
    index = int(f32(f32(abs(x) / own) + f32(0.34)))
    value = f32(f32(index * 2.0**exponent) * multiple)
    return -value if x < 0 else value


numbers = st.floats(-100, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=20),
    st.lists(numbers, min_size=30, max_size=40),
    st.floats(1e-4, 50),
)
def test_a_lattice_by_its_step(small: list[float], large: list[float], step: float):
    config = {"id": "lattice", "step": step, "exact_below": 0, "fine_below": 24}
    arrays = {
        "small": np.array(small, np.float32),
        "large": np.array(large, np.float32),
    }
    _, sent, _ = get_codec(config).encode_decoded(arrays)
    for name, fine in (("small", True), ("large", False)):
        expected = [lattice_value(float(x), step, fine=fine) for x in arrays[name]]
        np.testing.assert_array_equal(sent[name], np.array(expected, np.float32))


@pytest.mark.parametrize("step", [2.0**-20, 0.02, 1.0, 7.5, 7.4999999])
def test_a_lattice_of_nothing(step: float):
    arrays = {"w": np.zeros(30, np.float32)}
    config = {"id": "lattice", "step": step, "exact_below": 0}
    _, sent, _ = get_codec(config).encode_decoded(arrays)
    np.testing.assert_array_equal(sent["w"], arrays["w"])


def half(x: float, exponent: int) -> float:
    """Return a value of `topk` as float16 carries it at a power of two."""
    scaled = math.ldexp(x, -exponent)
    if exponent:
        most = (2 - 2.0**-10) * 2.0**14  # the float16 before 2^15
        scaled = max(-most, min(most, scaled))
    return f32(math.ldexp(float(np.float16(np.float32(scaled))), exponent))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=12),
    st.integers(-60, 40),
    st.floats(0.05, 1),
)
def test_topk_in_16_bits(values: list[float], scale: int, density: float):
    x = np.ldexp(np.array(values, np.float32), scale)
    config = {"id": "topk", "density": density, "values": "float16", "exact_below": 1}
    _, sent, _ = get_codec(config).encode_decoded({"w": x})
    kept = min(len(x), math.ceil(density * len(x)))
    order = sorted(range(len(x)), key=lambda i: (-abs(float(x[i])), i))[:kept]
    largest = max(abs(float(x[i])) for i in order)
    far = largest > 65504 or 0 < largest < 2.0**-10
    exponent = max(-127, min(127, math.frexp(largest)[1] - 15)) if far else 0
    expected = np.zeros(len(x), np.float32)
    for i in order:
        expected[i] = half(float(x[i]), exponent)
    np.testing.assert_array_equal(sent["w"], expected)
