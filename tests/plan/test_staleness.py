"""Stale devices get precise models; those without a model of their own get it whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import PlanError, download_ratio, staleness


def test_hand_computed() -> None:
    delta = staleness([9, 8, 5, 0], 10)
    assert delta.tolist() == [1, 2, 5, 10]
    assert download_ratio(delta, 10) == pytest.approx([0.54, 0.48, 0.3, 0.0])
    assert download_ratio(delta, 10, theta_max=0.9) == pytest.approx(
        [0.81, 0.72, 0.45, 0.0]
    )


def test_round_one_sends_whole_models() -> None:
    assert download_ratio(staleness([0, 0, 0], 1), 1).tolist() == [0, 0, 0]


def test_one_device_and_no_device() -> None:
    assert download_ratio([1], 4) == pytest.approx([0.45])
    assert download_ratio([], 4).shape == (0,)


def test_all_stale_get_whole_models_and_all_equal_get_the_same() -> None:
    assert not download_ratio(np.full(5, 7), 7).any()
    assert len(set(download_ratio(np.full(5, 3), 7))) == 1


def test_a_lost_model_is_not_assumed() -> None:
    ratio = download_ratio([1, 1], 10, holds_model=[True, False])
    assert ratio == pytest.approx([0.54, 0.0])


@given(
    st.integers(1, 10_000),
    st.lists(st.integers(0, 20_000), max_size=20),
    st.floats(0, 1),
)
def test_within_bounds_and_never_more_for_the_staler(
    server_round: int, deltas: list[int], theta_max: float
) -> None:
    ratio = download_ratio(sorted(deltas), server_round, theta_max=theta_max)
    assert ((ratio >= 0) & (ratio <= theta_max)).all()
    assert (np.diff(ratio) <= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: download_ratio([1], 0),
        lambda: download_ratio([-1], 3),
        lambda: download_ratio([1], 3, theta_max=1.1),
        lambda: download_ratio([float("nan")], 3),
        lambda: staleness([4], 3),
        lambda: staleness([-1], 3),
        lambda: staleness([0], 0),
    ],
)
def test_refused(wrong) -> None:
    with pytest.raises(PlanError):
        wrong()
