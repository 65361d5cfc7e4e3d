from __future__ import annotations

import numpy as np

from flwr_caesar.plan import Estimates, PowerModes


def test_only_a_mode_that_differs_from_the_one_before_has_changed() -> None:
    modes = PowerModes()
    assert modes.changed({"a": "MAXN", "b": "15W", "c": ""}) == []
    assert modes.changed({"a": "15W", "b": "15W", "c": "7W"}) == ["a"]
    # A device that tells nothing keeps what it told.
    assert modes.changed({"a": ""}) == []
    assert modes.changed({"a": "MAXN", "c": "7W"}) == ["a"]


def test_a_changed_mode_renews_the_times_and_keeps_the_link() -> None:
    estimates = Estimates(seconds_per_sample=1e-3)
    slots = [0, 1, 2]
    for _ in range(5):
        estimates.observe_training(slots, seconds=[4.0, 2.0, 2.0], samples=[100.0] * 3)
        estimates.observe_transfer(
            slots, bytes_down=[1e6] * 3, bytes_up=[1e6] * 3, seconds=[20.0] * 3
        )
    before = estimates.rows(slots)
    link = estimates.up_bytes_per_second.predict(slots)
    estimates.forget_compute([0, 99])
    # Nothing is known of it: it is expected to be as fast as the others are.
    computes = estimates.seconds_per_sample
    np.testing.assert_allclose(computes.predict([0, 1]), 0.02, rtol=1e-6)
    np.testing.assert_array_equal(estimates.up_bytes_per_second.predict(slots), link)
    after = estimates.rows(slots)
    np.testing.assert_array_equal(after[1:], before[1:])
    assert np.isnan(after[0]).sum() == 10
    # Half way by one observation, all the way by two, as of a new device.
    estimates.observe_training([0], seconds=[8.0], samples=[100.0])
    assert 0.02 < computes.predict([0])[0] < 0.08
    estimates.observe_training([0], seconds=[8.0], samples=[100.0])
    np.testing.assert_allclose(computes.predict([0]), 0.08, rtol=1e-6)
