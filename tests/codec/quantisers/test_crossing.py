"""A crossing is found wherever it is, with few looks at smooth functions."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.quantisers.crossing import Crossing, integer_crossing


@given(
    border=st.integers(-80, 80),
    guess=st.integers(-200, 200),
    slope=st.floats(0.01, 10),
    shape=st.sampled_from([lambda d: d, lambda d: d**3, lambda d: math.copysign(2, d)]),
)
def test_the_first_integer_that_is_not_above_is_found(border, guess, slope, shape):
    looked = []

    def function(at):
        assert -80 < at < 80
        assert at not in looked
        looked.append(at)
        return shape(border - 0.5 - at)

    found = integer_crossing(function, guess, -80, 80, slope=slope)
    assert found == max(border, -79)
    assert {found - 1, found} - {-80, 80} <= set(looked)


@given(border=st.integers(-60, 60), off=st.integers(-8, 8))
def test_a_straight_line_takes_four_looks(border, off):
    looked = []

    def function(at):
        looked.append(at)
        return 0.3 * (border - 0.5 - at)

    assert integer_crossing(function, border + off, -80, 80, slope=0.4) == border
    assert len(looked) <= 4


def test_both_ends_move_where_a_function_is_steep_on_one_side():
    """Interpolation alone would move the lower end only, and by little."""

    def function(at):
        return 2.0 ** (-30 * at) - 2.0**-10

    crossing = Crossing(0, 1, slope=1)
    crossing.add(0, function(0))
    crossing.add(1, function(1))
    for _ in range(16):
        at = crossing.guess()
        crossing.add(at, function(at))
    assert abs(at - 1 / 3) < 0.01
