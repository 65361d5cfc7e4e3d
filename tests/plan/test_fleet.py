"""What a server knows of its devices, and that it survives being stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan.errors import PlanError
from flwr_caesar.plan.fleet import Fleet
from flwr_caesar.plan.staleness import NEVER


def taught() -> Fleet:
    fleet = Fleet()
    rows = fleet.learn(
        ["a", "b", "c"], 4, volumes=[10, 20, 30], labels=[(5, 5), (20, 0), ()]
    )
    fleet.estimates.observe_training(rows, seconds=[1, 2, 4], samples=[100] * 3)
    fleet.learn(["b"], 7, volumes=[20], labels=[()])
    return fleet


def test_last_rounds_are_those_of_each_device() -> None:
    fleet = taught()
    assert fleet.last_rounds(["c", "b", "stranger", ""]).tolist() == [
        4,
        7,
        NEVER,
        NEVER,
    ]
    assert "a" in fleet
    assert "stranger" not in fleet
    assert len(fleet) == 3


def test_labels_told_once_are_kept() -> None:
    fleet = taught()
    scores = fleet.population.scores([0, 1, 2])
    assert not np.isnan(scores).any()
    fleet.learn(["a", "b", "c"], 9, volumes=[10, 20, 30], labels=[()] * 3)
    np.testing.assert_array_equal(fleet.population.scores([0, 1, 2]), scores)


def test_a_fleet_restored_plans_as_before() -> None:
    fleet = taught()
    restored = Fleet()
    restored.restore({name: fleet.pack(name) for name in ("c", "a", "b")})
    names = ["a", "b", "c", "d"]
    assert restored.last_rounds(names).tolist() == fleet.last_rounds(names).tolist()
    for one, other in (
        (
            restored.population.upload_ratio(restored.slots(names)),
            fleet.population.upload_ratio(fleet.slots(names)),
        ),
        (
            restored.estimates.seconds_per_sample.predict(restored.slots(names)),
            fleet.estimates.seconds_per_sample.predict(fleet.slots(names)),
        ),
    ):
        np.testing.assert_array_equal(one, other)


def test_labels_of_another_task_are_passed_over() -> None:
    fleet = taught()
    before = fleet.population.scores([0, 1, 2])
    fleet.learn(["d", "e"], 8, volumes=[5, 5], labels=[(1, 2, 3), (2**40, 1)])
    np.testing.assert_array_equal(fleet.population.scores([0, 1, 2]), before)
    declined = 5 / (5 + 256)
    assert fleet.population.scores([3, 4]) == pytest.approx([declined] * 2)
    assert fleet.last_rounds(["d"]).tolist() == [8]


@given(st.binary(max_size=120))
def test_bytes_that_were_not_stored_are_refused(data: bytes) -> None:
    good = taught().pack("a")
    for hostile in (data, good[:-1], good + b"\0", b"\x09" + good[1:]):
        with pytest.raises(PlanError, match="malformed"):
            Fleet().restore({"a": hostile})


@pytest.mark.parametrize("count", [1, 5000])
def test_many_devices_are_learnt_at_once(count: int) -> None:
    names = [f"device-{i}" for i in range(count)]
    fleet = Fleet()
    fleet.learn(names, 1, volumes=range(count), labels=[(1, i) for i in range(count)])
    ratios = fleet.population.upload_ratio(fleet.slots(names))
    assert ratios.min() >= 0.1
    assert ratios.max() <= 0.6


def test_ranks_among_devices_that_were_not_heard_of_yet() -> None:
    """Known ones are spread as if the others stood evenly between them."""
    fleet = Fleet()
    names = ["a", "b", "c"]
    fleet.learn(names, 1, volumes=[100, 10, 1], labels=[(), (), ()])
    upload_ratio = fleet.population.upload_ratio
    limits = {"theta_min": 0.0, "theta_max": 1.0}
    known = upload_ratio([0, 1, 2], **limits, federation=3)
    assert known == pytest.approx([1 / 3, 2 / 3, 1])  # the paper's rank / N
    np.testing.assert_array_equal(known, upload_ratio([0, 1, 2], **limits))
    np.testing.assert_array_equal(
        known, upload_ratio([0, 1, 2], **limits, federation=2)
    )
    many = upload_ratio([0, 1, 2, 3], **limits, federation=10**6)
    assert many == pytest.approx([0.25, 0.5, 0.75, 0.5], abs=1e-5)
