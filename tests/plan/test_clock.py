"""The virtual clock charges by the paper's formula, and the same whenever asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import PlanError, Profile, RoundTimes, Totals, VirtualClock
from flwr_caesar.plan.draws import normals, uniforms

from .test_profiles import GOOD

STEADY = {
    **GOOD,
    "mode_rounds": 4,
    "links": {
        "wire": {"down_bps": 8e6, "up_bps": 4e6},
        "air": {"down_bps": 1e6, "up_bps": 1e6},
    },
}


def clock(config=GOOD, devices: int = 16, seed: int = 3) -> VirtualClock:
    return VirtualClock(Profile.of(config), devices, seed=seed, flops_per_sample=1e6)


def test_hand_computed() -> None:
    pretended = clock(STEADY)
    classes, links = pretended.assignment.classes, pretended.assignment.links
    devices = np.arange(16)
    times = pretended.times(1, devices, bytes_down=1e6, bytes_up=5e5, samples=10 * 32)
    modes = pretended.modes(1, devices)
    speed = np.where(classes == 1, 4e9, np.where(modes == 0, 0.5e9, 0.25e9))
    assert times.download == pytest.approx(np.where(links == 0, 1.0, 8.0))
    assert times.upload == pytest.approx(np.where(links == 0, 1.0, 4.0))
    assert times.train == pytest.approx(320 * 1e6 / speed)
    assert times.seconds == times.finish.max()


def test_round_times_by_hand() -> None:
    times = RoundTimes.of(download=[1, 2, 3], train=[1, 1, 4], upload=[0, 0, 1])
    assert times.finish.tolist() == [2, 3, 8]
    assert times.seconds == 8
    assert times.waiting.tolist() == [6, 5, 0]
    closed = RoundTimes.of(
        download=[1, 2, 3], train=[1, 1, 4], upload=[0, 0, 1], deadline=5
    )
    assert closed.seconds == 5
    assert closed.waiting.tolist() == [3, 2, 0]
    assert closed.late.tolist() == [False, False, True]
    early = RoundTimes.of(download=[1, 2], train=1, deadline=5)
    assert early.seconds == 3
    assert not early.late.any()
    nobody = RoundTimes.of(download=[], train=[])
    assert nobody.seconds == 0
    totals = Totals().add(times).add(closed).add(nobody)
    assert totals == Totals(
        rounds=3,
        seconds=13,
        device_rounds=6,
        late=1,
        download=12,
        train=12,
        upload=2,
        waiting=16,
    )
    assert totals.mean_waiting == pytest.approx(16 / 6)
    assert Totals().mean_waiting == 0


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 15), min_size=1, max_size=8, unique=True),
    st.lists(st.integers(1, 500), min_size=1, max_size=4),
)
def test_times_do_not_depend_on_what_was_asked_before(seed, devices, rounds) -> None:
    first, second = clock(seed=seed), clock(seed=seed)
    for number in rounds:
        first.bandwidth(number, range(16))
        first.modes(number, range(16))
    last = rounds[-1]
    work = {"bytes_down": 1e6, "bytes_up": 1e5, "samples": 320}
    together = first.times(last, devices, **work)
    alone = [second.times(last, [device], **work).finish[0] for device in devices]
    assert together.finish.tolist() == alone


def test_another_seed_is_another_fleet() -> None:
    one, other = clock(seed=1), clock(seed=2)
    assert (one.bandwidth(5, range(16))[0] != other.bandwidth(5, range(16))[0]).any()


def test_power_modes_change_at_their_time_and_by_their_shares() -> None:
    pretended = clock(STEADY, 4000)
    slow = np.flatnonzero(pretended.assignment.classes == 0)
    first = pretended.modes(1, slow)
    assert (pretended.modes(4, slow) == first).all()
    assert (pretended.modes(5, slow) != first).any()
    assert first.mean() == pytest.approx(0.75, abs=0.05)
    fast = np.flatnonzero(pretended.assignment.classes == 1)
    assert not pretended.modes(9, fast).any()


@pytest.mark.parametrize("server_round", [1, 2, 40])
def test_drift_is_a_stationary_log_normal_process(server_round: int) -> None:
    config = {
        **GOOD,
        "links": {**GOOD["links"], "air": {**GOOD["links"]["air"], "spread": 0.0}},
    }
    pretended = clock(config, 16_000)
    on_air = np.flatnonzero(pretended.assignment.links == 1)

    def logs(number: int) -> np.ndarray:
        return np.log(pretended.bandwidth(number, on_air)[0] * 8 / 1e6)

    now, then = logs(server_round), logs(server_round + 1)
    assert now.mean() == pytest.approx(0, abs=0.02)
    assert now.std() == pytest.approx(0.4, rel=0.03)
    assert np.corrcoef(now, then)[0, 1] == pytest.approx(0.7, abs=0.03)
    down, up = pretended.bandwidth(server_round, on_air)
    assert down == pytest.approx(up)


def test_draws_are_what_they_say() -> None:
    normal = normals(7, 1, np.arange(40_000))
    assert normal.mean() == pytest.approx(0, abs=0.02)
    assert normal.std() == pytest.approx(1, abs=0.02)
    assert (normal > 1.96).mean() == pytest.approx(0.025, abs=0.004)
    uniform = uniforms(7, np.arange(200)[:, None], np.arange(200))
    assert uniform.shape == (200, 200)
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert len(np.unique(uniform)) == 40_000
    assert np.corrcoef(uniform[:, :-1].ravel(), uniform[:, 1:].ravel())[0, 1] < 0.02


def test_a_profile_may_say_what_is_charged() -> None:
    config = {**STEADY, "flops_per_sample": 2e6}
    seconds = clock(config).seconds_per_sample(1, range(16))
    assert seconds == pytest.approx(2 * clock(STEADY).seconds_per_sample(1, range(16)))
    assert VirtualClock(Profile.of(config), 2, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: VirtualClock(Profile.of(GOOD), 4, seed=0),
        lambda: VirtualClock(Profile.of(GOOD), 4, seed=-1, flops_per_sample=1.0),
        lambda: VirtualClock(Profile.of(GOOD), 0, seed=0, flops_per_sample=1.0),
        lambda: clock().bandwidth(0, [0]),
        lambda: clock().bandwidth(1, [16]),
        lambda: clock().modes(1, [-1]),
        lambda: clock().times(1, [0], bytes_down=-1, bytes_up=0, samples=1),
        lambda: RoundTimes.of(download=[1, 2], train=[1, 2, 3]),
        lambda: RoundTimes.of(download=[-1], train=[1]),
        lambda: RoundTimes.of(download=[1], train=[1], deadline=0),
    ],
)
def test_refused(wrong) -> None:
    with pytest.raises(PlanError):
        wrong()
