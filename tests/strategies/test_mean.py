"""The mean of updates, added one by one."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.strategies.mean import RunningMean


def added(*replies: tuple[dict, float], base: dict) -> RunningMean:
    mean = RunningMean()
    for update, weight in replies:
        mean.add(update, base, weight)
    return mean


@pytest.mark.parametrize("weights", [[1e-50, 1e-50], [1e15, 1.0], [5e-324, 1e15]])
def test_weights_of_any_size_have_a_finite_mean(weights) -> None:
    mean, base = RunningMean(), {"w": np.zeros(3, np.float32)}
    for weight, value in zip(weights, (3e38, -3e38), strict=True):
        mean.add({"w": np.full(3, value, np.float32)}, base, weight)
    share = weights[0] / sum(weights)
    expected = 3e38 * share - 3e38 * (1 - share)
    np.testing.assert_allclose(mean.result()["w"], expected, rtol=1e-5, atol=1e33)


def test_a_mean_over_two_bases_has_both_in_their_shares() -> None:
    mean = RunningMean()
    first, second = ({"w": np.full(2, v, np.float32)} for v in (0.0, 10.0))
    mean.add({"w": np.ones(2, np.float32)}, first, 3.0)
    mean.add({"w": np.ones(2, np.float32)}, second, 1.0)
    np.testing.assert_allclose(mean.result()["w"], 1 + 0.25 * 10)


def test_it_is_the_weighted_mean_and_keeps_dtypes() -> None:
    base = {"w": np.ones(2, np.float16), "d": np.ones(2)}
    mean = added(
        ({"w": np.full(2, 1, np.float32), "d": np.full(2, 1e-12)}, 3),
        ({"w": np.full(2, 5, np.float32), "d": np.full(2, 5e-12)}, 1),
        base=base,
    )
    assert (mean.count, mean.weight) == (2, 4)
    result = mean.result()
    assert result["w"].dtype == np.float16
    np.testing.assert_allclose(result["w"], 3.0)
    np.testing.assert_allclose(result["d"] - 1, 2e-12, rtol=1e-3)


def test_counters_are_averaged_as_numbers() -> None:
    base = {"steps": np.array(3, np.int64)}
    mean = added(
        ({"steps": np.array(10, np.int64)}, 1),
        ({"steps": np.array(13, np.int64)}, 3),
        base=base,
    )
    assert mean.result()["steps"] == 12.25


def test_no_weight_is_no_part_of_it() -> None:
    base = {"w": np.zeros(2, np.float32)}
    alone = added(({"w": np.ones(2, np.float32)}, 0), base=base)
    assert (alone.count, alone.weight, alone.result()) == (1, 0, {})
    alone.add({"w": np.full(2, 7, np.float32)}, base, 2)
    np.testing.assert_array_equal(alone.result()["w"], 7)


def test_a_mask_stays_unless_a_device_set_a_number() -> None:
    base = {"w": np.array([-np.inf, np.nan, 2], np.float32)}
    mean = added(({"w": np.array([0, 5, 1], np.float32)}, 1), base=base)
    np.testing.assert_array_equal(mean.result()["w"], [-np.inf, 5, 3])
