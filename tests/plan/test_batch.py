"""Batch sizes: the leader at the maximum, the rest fitted to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import (
    PlanError,
    batch_sizes,
    communication_seconds,
    round_seconds,
)


def sizes(mu, comm, **options):
    options = {"local_steps": 10, "max_batch": 32, **options}
    return batch_sizes(seconds_per_sample=mu, comm_seconds=comm, **options).tolist()


def test_hand_computed() -> None:
    comm = communication_seconds(
        [1e6, 1e6, 1e6],
        2e5,
        down_bytes_per_second=[1e6, 1e6, 5e5],
        up_bytes_per_second=[2e5, 1e5, 2e5],
    )
    assert comm == pytest.approx([2, 3, 3])
    # Leader: 2 + 10 * 32 * 0.01 = 5.2 s. Then (5.2 - 3) / 0.2 and (5.2 - 3) / 0.5.
    assert sizes([0.01, 0.02, 0.05], comm) == [32, 11, 4]
    times = round_seconds(
        [32, 11, 4],
        local_steps=10,
        seconds_per_sample=[0.01, 0.02, 0.05],
        comm_seconds=comm,
    )
    assert times == pytest.approx([5.2, 5.2, 5.0])


def test_a_device_that_cannot_keep_up_gets_the_smallest() -> None:
    assert sizes([0.01, 0.01], [1, 100]) == [32, 1]
    assert sizes([0.01, 0.01], [1, 100], min_batch=8) == [32, 8]


def test_one_device_all_equal_none() -> None:
    assert sizes([0.3], [9]) == [32]
    assert sizes([0.07] * 4, [0.3] * 4) == [32] * 4
    assert sizes([], []) == []


def test_what_rounding_takes_from_a_whole_number_is_given_back() -> None:
    """(1.4 + 10 * 32 * 0.01 - 1.4) / (10 * 0.01) is 31.999999999999996."""
    assert sizes([0.01] * 3, [1.4] * 3) == [32, 32, 32]
    assert sizes([0.01, 0.02, 0.04], [1.4] * 3) == [32, 16, 8]


@given(
    st.lists(
        st.tuples(st.floats(1e-6, 10), st.floats(0, 1e4)), min_size=1, max_size=20
    ),
    st.integers(1, 50),
    st.integers(1, 64),
    st.integers(0, 64),
)
def test_laws(devices, steps: int, smallest: int, wider: int) -> None:
    mu, comm = map(np.array, zip(*devices, strict=True))
    largest = smallest + wider
    found = batch_sizes(
        seconds_per_sample=mu,
        comm_seconds=comm,
        local_steps=steps,
        min_batch=smallest,
        max_batch=largest,
    )
    assert ((found >= smallest) & (found <= largest)).all()

    def times(batch):
        return round_seconds(
            batch, local_steps=steps, seconds_per_sample=mu, comm_seconds=comm
        )

    finish, *others = np.sort(times(largest)).tolist()
    if len(others) > 1 and 2 * finish < others[0]:
        finish = others[0]  # one far ahead of all others does not lead
    late = times(found) > finish * (1 + 1e-6)
    assert (found[late] == smallest).all()
    one_more = times(found + 1) * (1 + 1e-6) < finish
    assert (found[one_more] == largest).all()


@pytest.mark.parametrize(
    ("mu", "comm", "options"),
    [
        ([0.0], [1], {}),
        ([float("nan")], [1], {}),
        ([1], [-1], {}),
        ([1, 1], [1], {}),
        ([1], [1], {"local_steps": 0}),
        ([1], [1], {"min_batch": 0}),
        ([1], [1], {"min_batch": 64}),
    ],
)
def test_refused(mu, comm, options) -> None:
    with pytest.raises(PlanError):
        sizes(mu, comm, **options)
