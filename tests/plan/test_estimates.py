"""Estimates are learnt fast, and one wild observation does not ruin them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import Estimate, Estimates, PlanError

values = st.floats(1e-4, 1e4)


def learnt(observations: list[float], prior: float = 1.0) -> float:
    estimate = Estimate(prior=prior)
    # Another device, so that the prior of the population does not follow this one.
    estimate.observe([1], [prior])
    estimate.observe([2], [prior])
    for value in observations:
        estimate.observe([0], [value])
    return float(estimate.predict([0])[0])


def test_hand_computed() -> None:
    assert learnt([]) == pytest.approx(1)
    assert learnt([16]) == pytest.approx(4)
    assert learnt([16, 16]) == pytest.approx(16)
    assert learnt([16, 4]) == pytest.approx(4)  # of 1, 4 and 16: the prior counts, too
    assert learnt([4, 16, 2]) == pytest.approx(4)
    assert learnt([4, 16, 2, 1]) == pytest.approx(math.sqrt(8))
    assert learnt([1000, 1000, 4, 16, 2, 1, 8]) == pytest.approx(4)


@given(values, st.floats(1, 1.2), st.floats(1, 1.2), values)
def test_a_new_device_is_learnt_within_two_rounds(truth, slower, faster, prior) -> None:
    found = learnt([truth * slower, truth / faster], prior)
    assert truth / 1.2001 <= found <= truth * 1.2001


@given(st.lists(st.floats(0.9, 1.1), min_size=2, max_size=8), values, st.integers(0, 7))
def test_one_stalled_reply_ruins_nothing(noise, truth, place) -> None:
    steady = [truth * factor for factor in noise]
    stalled = [*steady[:place], truth * 1000, *steady[place:]]
    found = learnt(stalled)
    assert found <= truth * 1.1001
    assert found >= truth * 0.8999


@given(values, values)
def test_a_lasting_change_is_learnt_within_three_rounds(before, after) -> None:
    assert learnt([before] * 6 + [after] * 3) == pytest.approx(after, rel=1e-5)


def test_the_prior_is_a_constant_then_the_median_of_all() -> None:
    estimate = Estimate(prior=3.0)
    assert estimate.prior == pytest.approx(3)
    assert estimate.predict([0, 7]) == pytest.approx([3, 3])
    estimate.observe([0, 1, 2], [1.0, 10.0, 1000.0])
    assert estimate.prior == pytest.approx(10)
    assert estimate.predict([50]) == pytest.approx([10])


@given(st.lists(st.tuples(st.integers(0, 9), values), max_size=40))
def test_storing_and_taking_back(history) -> None:
    estimate, copy = Estimate(prior=2.0), Estimate(prior=2.0)
    for slot, value in history:
        estimate.observe([slot], [value])
    copy.restore(range(10), estimate.rows(range(10)))
    assert (copy.predict(range(12)) == estimate.predict(range(12))).all()
    assert copy.prior == estimate.prior


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, 0, -1, 1e300])
def test_nonsense_is_passed_over(nonsense: float) -> None:
    estimate = Estimate(prior=1.0)
    estimate.observe([0, 1], [nonsense, 4.0])
    assert estimate.rows([0]).tolist() != estimate.rows([1]).tolist()
    assert np.isnan(estimate.rows([0])).all()
    estimate.restore([1], [[nonsense] * 5])
    assert (np.abs(estimate.rows([1])[~np.isnan(estimate.rows([1]))]) <= 60).all()


def test_training_and_transfer() -> None:
    found = Estimates()
    for _ in range(3):
        found.observe_training([0, 1], seconds=[2.0, 8.0], samples=[200, 200])
        found.observe_transfer(
            [0, 1], bytes_down=[3e6, 500], bytes_up=[1e6, 500], seconds=[2.0, 30.0]
        )
        found.observe_link(
            [2],
            bytes_down=[8e6],
            seconds_down=[1.0],
            bytes_up=[1e6],
            seconds_up=[-0.5],
        )
    assert found.seconds_per_sample.predict([0, 1]) == pytest.approx([0.01, 0.04])
    assert found.down_bytes_per_second.predict([0, 2]) == pytest.approx([2e6, 8e6])
    assert found.up_bytes_per_second.predict([0]) == pytest.approx([2e6])
    # Too few bytes to tell, and a time below 0: nothing was learnt, the median holds.
    assert np.isnan(found.down_bytes_per_second.rows([1])).all()
    assert found.up_bytes_per_second.predict([1, 2]) == pytest.approx([2e6, 2e6])


def test_each_direction_of_a_link_is_learnt_from_its_own_bytes() -> None:
    found = Estimates()
    for _ in range(3):
        found.observe_link(
            [0],
            bytes_down=[8e6],
            seconds_down=[2.0],
            bytes_up=[1e5],
            seconds_up=[4.0],
        )
    assert found.down_bytes_per_second.predict([0]) == pytest.approx([4e6])
    assert found.up_bytes_per_second.predict([0]) == pytest.approx([2.5e4])


def foretold(found: Estimates, sent: float) -> float:
    rate = found.up_bytes_per_second.predict([0])[0]
    return float(found.overhead_seconds.predict([0])[0] + sent / rate)


def after(rounds: int, sent: float, seconds: float, started: float) -> Estimates:
    found = Estimates()
    for _ in range(rounds):
        found.observe_transfer(
            [0],
            bytes_down=[sent / 2],
            bytes_up=[sent / 2],
            seconds=[seconds],
            started=[started],
            polling=3.0,
        )
    return found


@given(st.floats(0, 1e8), st.floats(0, 15), st.floats(0, 6), st.floats(1e4, 1e8))
def test_a_round_like_the_last_ones_is_foretold(sent, started, waited, rate) -> None:
    seconds = started + waited + sent / rate + 0.01
    found = foretold(after(3, sent, seconds, started), sent)
    assert seconds <= found * 1.001
    # Where messages hardly lay about, the transfer may be taken to last as long.
    assert found <= 1.001 * max(seconds, started + 3.0)


def test_small_messages_tell_of_idling_and_not_of_the_link() -> None:
    found = after(5, 16e3, seconds=12.0, started=9.0)
    assert foretold(found, 16e3) == pytest.approx(12, rel=1e-3)
    # A whole model of 200 kB at the prior's 10 Mbit/s, not at 16 kB in 12 s.
    assert foretold(found, 200e3) == pytest.approx(12 + 184e3 / 1.25e6, rel=1e-3)


def test_a_slow_link_is_told_from_a_slow_start() -> None:
    link = after(5, 1e6, seconds=2 + 3 + 8, started=2.0)
    start = after(5, 1e6, seconds=10 + 3, started=10.0)
    assert link.up_bytes_per_second.predict([0]) == pytest.approx([1e6 / 8])
    assert link.overhead_seconds.predict([0]) == pytest.approx([5.0])
    assert start.up_bytes_per_second.predict([0]) >= [1e6 / 3]
    assert foretold(link, 2e6) == pytest.approx(21)


def test_a_quick_reply_corrects_a_rate_that_is_far_too_low() -> None:
    found = Estimates()
    found.observe_link(
        [1, 2, 3],
        bytes_down=[1e6] * 3,
        seconds_down=[30.0] * 3,
        bytes_up=[1e6] * 3,
        seconds_up=[30.0] * 3,
    )
    for _ in range(3):
        found.observe_transfer(
            [0], bytes_down=[5e5], bytes_up=[5e5], seconds=[4.0], polling=3.0
        )
    assert found.up_bytes_per_second.predict([0]) >= [0.99e6 / 3]
    assert foretold(found, 1e6) == pytest.approx(4, rel=1e-3)


def test_all_quantities_are_stored_together() -> None:
    found, copy = Estimates(), Estimates()
    found.observe_training([3], seconds=[2.0], samples=[100])
    found.observe_transfer([3], bytes_down=[1e6], bytes_up=[1e6], seconds=[1.0])
    stored = found.rows([3]).tobytes()
    assert len(stored) == 80
    copy.restore([3], np.frombuffer(stored, np.float32).reshape(1, 20))
    assert copy.rows([3]).tobytes() == stored


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Estimate(prior=0),
        lambda: Estimate(prior=math.nan),
        lambda: Estimate(prior=1).observe([0, 0], [1, 1]),
        lambda: Estimate(prior=1).observe([0], [1, 1]),
        lambda: Estimate(prior=1).observe([-1], [1]),
        lambda: Estimate(prior=1).restore([0], [[1, 2]]),
        lambda: Estimates().restore([0], [[1] * 15]),
    ],
)
def test_refused(wrong) -> None:
    with pytest.raises(PlanError):
        wrong()


def test_what_is_supposed_of_a_device_before_anything_was_observed() -> None:
    known = Estimates()
    assert known.seconds_per_sample.predict([0]) == pytest.approx([1e-3])
    assert known.down_bytes_per_second.predict([0]) == pytest.approx([1.25e6])
    assert known.up_bytes_per_second.predict([0]) == pytest.approx([1.25e6])
    assert known.overhead_seconds.predict([0]) == pytest.approx([0], abs=1e-3)
