"""Importance, ranks and upload ratios, against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import (
    PlanError,
    Population,
    importance,
    label_divergence,
    rank,
    upload_ratio,
)


def test_divergence_by_hand() -> None:
    found = label_divergence([[1, 1], [2, 0], [0, 30]], [3, 1])
    assert found == pytest.approx(
        [
            0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25),
            math.log(1 / 0.75),
            math.log(1 / 0.25),
        ]
    )
    assert label_divergence([[6, 2]], [3, 1]) == pytest.approx([0])
    assert label_divergence([[1, 1]], [1, 0])[0] == math.inf


def test_importance_by_hand() -> None:
    found = importance([10, 5, 10], [0.0, math.log(2), math.nan])
    assert found == pytest.approx([1.0, 0.5 * 0.5 + 0.5 * 0.5, 1.0])
    by_volume = importance([10, 5], [3.0, 0.0], volume_weight=1)
    assert by_volume == pytest.approx([1.0, 0.5])
    assert importance([4, 1], [math.inf, math.inf]) == pytest.approx([0.5, 0.125])


def test_declining_ranks_by_volume_alone() -> None:
    assert importance([3], [math.nan], max_volume=12) == pytest.approx([0.25])
    assert importance([0, 0], [math.nan] * 2).tolist() == [0, 0]


def test_ranks_and_equation_10() -> None:
    ranks = rank([0.1, 0.9, 0.5, 0.5])
    assert ranks.tolist() == [4, 1, 2.5, 2.5]
    assert upload_ratio(ranks, 4) == pytest.approx([0.6, 0.225, 0.4125, 0.4125])
    assert upload_ratio([1], 1) == pytest.approx([0.6])
    assert rank([]).shape == (0,)
    assert rank([2.0] * 5).tolist() == [3] * 5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_ranks_do_not_depend_on_order(scores: list[float], source) -> None:
    order = list(range(len(scores)))
    source.shuffle(order)
    assert (rank(np.array(scores)[order]) == rank(scores)[order]).all()
    assert rank(scores).mean() == pytest.approx((len(scores) + 1) / 2)


histogram_rows = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)),
        min_size=n,
        max_size=n,
    )
)


@given(histogram_rows, histogram_rows, st.floats(0, 1))
def test_a_population_agrees_with_the_formulas(first, second, weight: float) -> None:
    known = Population(volume_weight=weight)
    held: dict[int, tuple[int, tuple[int, ...]]] = {}
    for start, rows in ((0, first), (5, second)):
        slots = list(range(start, start + len(rows)))
        volumes = [7 * sum(row) + slot for slot, row in zip(slots, rows, strict=True)]
        known.update(slots, volumes, np.array(rows))
        held |= dict(zip(slots, zip(volumes, rows, strict=True), strict=True))
    slots = sorted(held)
    counts = np.array([held[slot][1] for slot in slots])
    volumes = np.array([held[slot][0] for slot in slots])
    revealed = counts.sum(axis=1) > 0
    divergences = np.full(len(slots), np.nan)
    if revealed.any():
        divergences[revealed] = label_divergence(counts[revealed], [1, 1, 1])
    terms = volumes / (volumes + 256)
    expected = importance(terms, divergences, max_volume=1, volume_weight=weight)
    assert len(known) == len(slots)
    assert known.classes == (3 if revealed.any() else 0)
    assert known.scores(slots) == pytest.approx(expected, abs=1e-9)
    assert (known.ranks(slots) == rank(known.scores(slots))).all()
    ratios = upload_ratio(known.ranks(slots), len(slots))
    assert (known.upload_ratio(slots) == ratios).all()


def test_equal_devices_are_treated_alike() -> None:
    known = Population()
    known.update(range(97), [60] * 97, [[1, 2, 57]] * 97)
    assert set(known.ranks(range(97))) == {49.0}


def test_unknown_devices_have_the_middle_rank() -> None:
    known = Population()
    assert known.upload_ratio([0, 9]) == pytest.approx([0.35, 0.35])
    known.update([2, 0, 3], [1, 2, 3])
    assert known.ranks([3, 1, 0, 2, 1000]).tolist() == [1, 2, 2, 3, 2]
    assert known.upload_ratio([1]) == pytest.approx([0.1 + 0.5 * 2 / 3])
    assert np.isnan(known.scores([1, 1000])).all()


def test_one_known_device() -> None:
    known = Population()
    known.update([0], [256], [[128, 128]])
    assert known.scores([0]) == pytest.approx([0.75])
    assert known.upload_ratio([0]) == pytest.approx([0.6])


def test_with_one_label_all_data_are_alike() -> None:
    known = Population()
    known.update([0], [256], [[256]])
    assert known.scores([0]) == pytest.approx([0.75])


def test_a_device_may_decline_after_all() -> None:
    known = Population()
    known.update([0, 1], [10, 10], [[10, 0], [0, 10]])
    known.update([1], [256])
    assert known.scores([0, 1]) == pytest.approx([5 / 266 + 0.25, 0.5])


@pytest.mark.parametrize(
    ("slots", "volumes", "histograms"),
    [
        ([0, 0], [1, 1], None),
        ([-1], [1], None),
        ([0.5], [1], None),
        ([0], [-1], None),
        ([0], [1.5], None),
        ([0], [1, 2], None),
        ([0], [1 << 32], None),
        ([0], [1], [[-1, 2]]),
        ([0], [1], [[0.5, 2]]),
        ([0], [1], [[1, 1], [1, 1]]),
        ([1 << 40], [1], None),
    ],
)
def test_what_is_refused_changes_nothing(slots, volumes, histograms) -> None:
    known = Population()
    known.update([0, 1], [3, 4], [[3, 0], [0, 4]])
    before = known.scores([0, 1])
    with pytest.raises(PlanError):
        known.update(slots, volumes, histograms)
    assert (known.scores([0, 1]) == before).all()
    assert known.classes == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Population(volume_weight=2),
        lambda: importance([1], [0.0], volume_weight=-0.1),
        lambda: importance([1], [-1.0]),
        lambda: importance([1, 2], [0.0]),
        lambda: importance([-1], [0.0]),
        lambda: label_divergence([[0, 0]], [1, 1]),
        lambda: label_divergence([[1, 1, 1]], [1, 1]),
        lambda: label_divergence([[-1, 2]], [1, 1]),
        lambda: upload_ratio([0], 3),
        lambda: upload_ratio([4], 3),
        lambda: upload_ratio([1], 3, theta_min=0.7),
    ],
)
def test_refused(wrong) -> None:
    with pytest.raises(PlanError):
        wrong()
