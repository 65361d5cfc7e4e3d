"""Clusters are the best there are, few, and never less precise than asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import PlanError, cluster, download_ratio

ratio_lists = st.lists(
    st.integers(0, 40).map(lambda delta: (1 - delta / 40) * 0.6), max_size=40
)


def distance(values: np.ndarray, labels: np.ndarray) -> float:
    return sum(
        float(((values[labels == k] - values[labels == k].mean()) ** 2).sum())
        for k in np.unique(labels)
    )


def best_distance(values: np.ndarray, clusters: int) -> float:
    points = np.unique(values)
    return min(
        distance(values, np.searchsorted(np.asarray(cuts), values, side="right"))
        for cuts in itertools.combinations(points[1:], min(clusters, len(points)) - 1)
    )


def test_hand_computed() -> None:
    ratios = [0.5, 0.52, 0.1, 0.12, 0.3]
    precise = cluster(ratios, max_clusters=3)
    assert precise.assignment.tolist() == [2, 2, 0, 0, 1]
    assert precise.ratios.tolist() == [0.1, 0.3, 0.5]
    assert precise.device_ratios.tolist() == [0.5, 0.5, 0.1, 0.1, 0.3]
    mean = cluster(ratios, max_clusters=3, rule="mean")
    assert mean.ratios == pytest.approx([0.11, 0.3, 0.51])


@pytest.mark.parametrize("rule", ["precise", "mean"])
def test_whole_models_are_a_group_of_their_own(rule: str) -> None:
    ratios = download_ratio([10, 1, 2, 1], 10, holds_model=[True, True, True, False])
    found = cluster(ratios, max_clusters=1, rule=rule)
    assert found.assignment.tolist() == [0, 1, 1, 0]
    assert found.ratios[0] == 0
    assert found.ratios[1] == pytest.approx(0.48 if rule == "precise" else 0.51)


@pytest.mark.parametrize("rule", ["precise", "mean"])
def test_one_device_all_equal_all_stale_none(rule: str) -> None:
    assert cluster([0.3], rule=rule).ratios.tolist() == [0.3]
    assert cluster([0.3] * 9, rule=rule).ratios.tolist() == [pytest.approx(0.3)]
    assert cluster([0.0] * 9, rule=rule).ratios.tolist() == [0.0]
    nobody = cluster([], rule=rule)
    assert nobody.ratios.shape == nobody.device_ratios.shape == (0,)


@given(ratio_lists, st.integers(1, 5))
def test_optimal(ratios: list[float], clusters: int) -> None:
    values = np.array([r for r in ratios if r > 0])
    if not len(values):
        return
    found = cluster(values, max_clusters=clusters)
    assert distance(values, found.assignment) == pytest.approx(
        best_distance(values, clusters), abs=1e-12
    )


@given(ratio_lists, st.integers(1, 6), st.sampled_from(["precise", "mean"]))
def test_laws(ratios: list[float], clusters: int, rule: str) -> None:
    found = cluster(ratios, max_clusters=clusters, rule=rule)
    given_ratios = np.array(ratios)
    assert len(found.ratios) <= clusters + 1
    assert (np.diff(found.ratios) > 0).all()
    assert set(found.assignment) == set(range(len(found.ratios)))
    assert ((found.device_ratios == 0) == (given_ratios == 0)).all()
    if rule == "precise":
        assert (found.device_ratios <= given_ratios).all()
    elif len(ratios):
        assert found.device_ratios.mean() == pytest.approx(given_ratios.mean())


def test_more_distinct_ratios_than_points() -> None:
    ratios = np.random.default_rng(0).random(10_000) * 0.6
    found = cluster(ratios, max_clusters=4)
    assert len(found.ratios) == 4
    assert (found.device_ratios <= ratios).all()
    quarters = np.searchsorted([0.15, 0.3, 0.45], ratios)
    assert distance(ratios, found.assignment) <= 1.01 * distance(ratios, quarters)


@pytest.mark.parametrize(
    ("ratios", "options"),
    [
        ([0.1], {"max_clusters": 0}),
        ([0.1], {"rule": "median"}),
        ([-0.1], {}),
        ([float("nan")], {}),
    ],
)
def test_refused(ratios, options) -> None:
    with pytest.raises(PlanError):
        cluster(ratios, **options)
