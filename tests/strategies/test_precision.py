"""What Caesar asks of uploads by default: errors that hold the model back a little."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.plan.precision import LAG
from flwr_caesar.strategies import Caesar
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState

from .apps import numpy_app
from .local_grid import LocalGrid
from .test_caesar import fleet_clock

SHAPE = (200, 250)


def model() -> ArrayRecord:
    return ArrayRecord({"weight": Array(np.zeros(SHAPE, np.float32))})


def moving(arrays, node, server_round):
    """Step in a direction that devices share in part."""
    common = np.random.default_rng(0).normal(size=SHAPE)
    own = np.random.default_rng((node, server_round)).normal(size=SHAPE)
    return {"weight": (arrays["weight"] + common + own).astype(np.float32)}


def asked(*, step=moving, nodes=4, rounds=3, **settings) -> list[list[dict]]:
    """Return the configuration of each device's upload, of each round."""
    found: list[list[dict]] = []
    random.seed(0)
    sampling = {"min_train_nodes": 1, "min_available_nodes": 1}
    strategy = Caesar(FedAvg(fraction_evaluate=0.0, **sampling), **settings)
    plan = strategy.method.plan

    def noted(phase, devices):
        plans = plan(phase, devices)
        found.append([plans[node].upload.config for node in sorted(plans)])
        return plans

    strategy.method.plan = noted
    strategy.start(
        LocalGrid(numpy_app(mods=[compression_mod], step=step), nodes),
        model(),
        num_rounds=rounds,
    )
    return found


def errors(configs: list[list[dict]]) -> list[float]:
    """Return each round's mean error, of the bits that it takes."""
    return [statistics.geometric_mean(c["nmse"] for c in own) for own in configs]


def lagging(turns: float) -> float:
    return LAG / 2 * turns / (1 + LAG / 2 * turns)


@pytest.mark.parametrize("nodes", [1, 3])
def test_errors_grow_with_the_turns_that_devices_took(nodes) -> None:
    found = errors(asked(nodes=nodes))
    assert found == pytest.approx([lagging(n) for n in (1, 2, 3)], rel=0.01)


@pytest.mark.parametrize("value", [0.0, -9.0, 1e30, math.nan])
def test_no_device_changes_what_others_are_asked_for(value) -> None:
    def lying(arrays, node, server_round):
        if node == 2:
            return {"weight": np.full_like(arrays["weight"], value)}
        return moving(arrays, node, server_round)

    refused = 0.0 if abs(value) < 10 else 1.0  # a reply that is refused is no turn
    found = errors(asked(step=lying, importance_aware=False))
    turns = [1, (8 - refused) / 4, (12 - 2 * refused) / 4]
    assert found == pytest.approx([lagging(n) for n in turns], rel=0.01)


def test_more_important_devices_get_the_smaller_error() -> None:
    configs = asked(rounds=2)[1]  # more examples at a larger node id
    own = [config["nmse"] for config in configs]
    assert own == sorted(own, reverse=True)
    assert own[0] > 1.5 * own[-1]
    alike = asked(rounds=2, importance_aware=False)[1]
    assert len({config["nmse"] for config in alike}) == 1


def test_a_rate_and_an_error_that_are_set_are_what_devices_are_asked_for() -> None:
    alike = {"importance_aware": False, "rounds": 1, "nodes": 2}
    for round_ in asked(rate=0.7, **alike):
        assert {(c["rate"], c["nmse"]) for c in round_} == {(0.7, 0.0)}
    for round_ in asked(nmse=0.15, **alike):
        assert {c["nmse"] for c in round_} == {0.15}
    assert asked(rate=None, **alike) == asked(**alike)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": "fine"}, "rate"),
        ({"nmse": 0}, "nmse"),
        ({"nmse": 1}, "nmse"),
        ({"nmse": float("nan")}, "nmse"),
        ({"rate": 1.0, "nmse": 0.1}, "not both"),
        ({"codec": "paper", "nmse": 0.1}, "nmse"),
        ({"codec": "paper", "rate": 1.0}, "rate"),
    ],
)
def test_what_is_no_target_is_refused_at_once(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Caesar(FedAvg(), **settings)


def test_a_deadline_that_wants_less_is_met_by_a_rate() -> None:
    def run(seconds: float) -> list[list[dict]]:
        return asked(
            rounds=3,
            local_steps=10,
            max_batch=64,
            clock=fleet_clock(4),
            round_seconds=seconds,
        )

    tight, loose = run(0.05)[-1], run(1000.0)[-1]
    assert any(config["nmse"] == 0 for config in tight)
    assert all(config["nmse"] > 0 for config in loose)


def test_models_are_published_more_coarsely_as_rounds_go_by() -> None:
    def steps(**settings) -> list[float]:
        downlink = Caesar(FedAvg(), **settings).method.downlink
        weight = np.zeros(SHAPE, np.float32)
        found = []
        rng = np.random.default_rng(0)
        downlink.publish(downlink.begin({"weight": weight}), 7)
        for number in range(8, 20):
            weight = weight + rng.normal(size=SHAPE).astype(np.float32)
            before = weight - downlink.held({})["weight"]
            downlink.publish({"weight": weight}, number)
            left = weight - downlink.held({})["weight"]
            found.append(float(np.square(left).mean() / np.square(before).mean()))
        return found

    auto = steps()
    assert auto[0] == pytest.approx(lagging(1), rel=0.5)  # steps are powers of two
    assert auto[11] == pytest.approx(lagging(12), rel=0.5)
    fixed = steps(step_sigmas=1.0)
    assert fixed[0] == pytest.approx(fixed[11], rel=0.5)


def test_what_was_counted_survives_a_restart(tmp_path) -> None:
    def run(folder, *stops: int):
        grid = LocalGrid(numpy_app(mods=[compression_mod], step=moving), 4)
        for stop in stops:
            strategy = Caesar(FedAvg(fraction_evaluate=0.0), checkpoint=folder)
            result = strategy.start(grid, model(), num_rounds=stop)
        return result.arrays["weight"].numpy(), strategy

    whole, first = run(tmp_path / "whole", 4)
    parts, second = run(tmp_path / "parts", 2, 3, 4)
    np.testing.assert_array_equal(whole, parts)
    sent = [
        sorted(d.bytes_up for d in strategy.history[-1].devices)
        for strategy in (first, second)
    ]
    assert sent[0] == sent[1]
    state = first.method.state()
    assert second.method.state().tree["precision"] == state.tree["precision"]

    assert state.tree["precision"]["uploads"] == 16

    older = {name: own for name, own in state.tree.items() if name != "precision"}
    anew = Caesar(FedAvg()).method
    anew.restore(replace(state, tree=older), {})
    assert anew.state().tree["precision"]["uploads"] == 0
    for damaged in (
        3,
        {},
        {"uploads": -1, "bits": 0.5},
        {"uploads": 1, "bits": float("nan")},
        {"uploads": "many", "bits": 0.5},
    ):
        tree = {**state.tree, "precision": damaged}
        with pytest.raises(DamagedStateError, match="uploads"):
            anew.restore(StrategyState(tree, state.arrays), {})
