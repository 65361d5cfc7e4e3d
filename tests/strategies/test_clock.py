"""A virtual clock charges what was really sent and asked."""

from __future__ import annotations

import random

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.plan import Presence, Profile, VirtualClock
from flwr_caesar.strategies import TopK, Uncompressed
from flwr_caesar.strategies.charge import LATE

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

DEVICES = 4
FAST, SLOW = 0.001, 0.01  # seconds a sample
DOWN, UP = 20_000.0, 10_000.0  # bytes a second


def fleet() -> VirtualClock:
    """Two fast devices and two slow ones, all on one steady link."""
    mode = {"share": 1, "utilisation": 1.0, "links": {"wire": 1}}
    profile = Profile.of(
        {
            "name": "two",
            "flops_per_sample": 1e6,
            "devices": {
                "fast": {**mode, "modes": {"only": {"peak_flops": 1e6 / FAST}}},
                "slow": {**mode, "modes": {"only": {"peak_flops": 1e6 / SLOW}}},
            },
            "links": {"wire": {"down_bps": 8 * DOWN, "up_bps": 8 * UP}},
        }
    )
    assert profile is not None
    return VirtualClock(profile, DEVICES, seed=1)


def run(make=TopK, *, rounds=1, config=None, evaluate=0.0, **options):
    random.seed(0)
    strategy = make(FedAvg(fraction_evaluate=evaluate), clock=fleet(), **options)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), DEVICES)
    result = strategy.start(
        grid,
        initial_model(),
        num_rounds=rounds,
        train_config=ConfigRecord(config or {}),
    )
    return result, strategy.history


@pytest.mark.parametrize("make", [TopK, Uncompressed])
@pytest.mark.parametrize(
    ("config", "samples"),
    [
        ({"local-steps": 5, "batch-size": 7}, lambda node: 35),
        ({"local-epochs": 3}, lambda node: 30 * node),
        ({}, lambda node: 10 * node),
    ],
)
def test_a_device_is_charged_for_bytes_and_samples(make, config, samples) -> None:
    _, (record,) = run(make, config=config)
    assert sorted(d.device_class for d in record.devices) == ["fast"] * 2 + ["slow"] * 2
    for device in record.devices:
        mu = {"fast": FAST, "slow": SLOW}[device.device_class]
        assert device.batch_size == config.get("batch-size", 0)
        assert device.local_steps == config.get("local-steps", 0)
        assert device.virtual_download == pytest.approx(device.bytes_down / DOWN)
        assert device.virtual_upload == pytest.approx(device.bytes_up / UP)
        assert device.virtual_train == pytest.approx(mu * samples(device.node_id))
    end = max(d.virtual_seconds for d in record.devices)
    assert record.virtual_seconds == pytest.approx(end)
    for device in record.devices:
        assert device.waiting == pytest.approx(end - device.virtual_seconds)


def test_a_test_is_charged_as_a_forward_pass() -> None:
    _, (_, record) = run(evaluate=1.0)
    assert record.phase == "evaluate"
    for device in record.devices:
        mu = {"fast": FAST, "slow": SLOW}[device.device_class]
        assert device.virtual_train == pytest.approx(mu * device.node_id / 3)
        assert device.virtual_upload == pytest.approx(device.bytes_up / UP)
        assert device.bytes_up < 200


def test_nodes_are_numbered_by_the_order_of_their_ids() -> None:
    _, history = run(rounds=3)
    clock = fleet()
    for record in history:
        for device in record.devices:
            assert device.device_class == clock.device_class(device.node_id - 1)


def test_a_deadline_counts_virtual_seconds_and_keeps_the_late_update() -> None:
    """What a late device computed is in its residual, not in the model."""
    work = {"local-steps": 10, "batch-size": 10}
    _, (record,) = run(config=work, deadline=1.8)
    by_class = {d.device_class: d for d in record.devices}
    assert by_class["fast"].dropped == ""
    assert by_class["slow"].dropped == LATE
    assert record.virtual_seconds == 1.8
    assert by_class["slow"].waiting == 0
    fast = by_class["fast"]
    assert fast.waiting == pytest.approx(1.8 - fast.virtual_seconds)


def test_a_round_that_nobody_makes_keeps_the_model() -> None:
    result, (record,) = run(deadline=1e-3)
    assert {d.dropped for d in record.devices} == {LATE}
    start = initial_model()
    for name, array in result.arrays.items():
        assert array.numpy().tobytes() == start[name].numpy().tobytes()


def test_a_quorum_has_no_meaning_in_virtual_time() -> None:
    with pytest.raises(ValueError, match="quorum"):
        TopK(FedAvg(), clock=fleet(), quorum=0.5)


def test_without_a_clock_waiting_is_measured() -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    grid = LocalGrid(numpy_app(mods=[compression_mod]), DEVICES)
    strategy.start(grid, initial_model(), num_rounds=1)
    (record,) = strategy.history
    assert record.virtual_seconds is None
    end = max(d.seconds_round_trip for d in record.devices)
    for device in record.devices:
        assert device.virtual_seconds == 0
        assert device.waiting == pytest.approx(end - device.seconds_round_trip)
    assert record.waiting[1] == max(d.waiting for d in record.devices)


def test_a_device_that_is_away_is_not_asked_and_comes_back() -> None:
    presence = Presence(0.5, 2, seed=1)
    _, history = run(rounds=8, presence=presence)
    asked = {r.server_round: {d.node_id - 1 for d in r.devices} for r in history}
    expected = {
        t: set(np.flatnonzero(presence.present(t, range(DEVICES)))) for t in range(1, 9)
    }
    assert asked == {t: there for t, there in expected.items() if there}
    assert len(set(map(frozenset, expected.values()))) > 2
