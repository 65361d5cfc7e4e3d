"""What Caesar asks of uploads and published models by default: an error of each."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import difference, get_codec
from flwr_caesar.codec.contract.energy import energy
from flwr_caesar.plan.precision import DOWNLOAD_ERROR, UPLOAD_ERROR
from flwr_caesar.strategies import Caesar
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.strategy_state import StrategyState

from .apps import numpy_app
from .local_grid import LocalGrid
from .test_caesar import fleet_clock

SHAPE = (300, 300)  # large enough for what large models get


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


def test_every_round_asks_for_the_same_error_rounded_to_nearest() -> None:
    found = asked(nodes=3)
    assert errors(found) == pytest.approx([UPLOAD_ERROR] * 3, rel=0.01)
    assert {config["dead_zone"] for own in found for config in own} == {0.501}


@pytest.mark.parametrize("step", [1.4e-3, 2e-3, 2.5e-3])
def test_an_update_of_16_bits_takes_no_more_bytes_at_the_same_step(
    step: float,
) -> None:
    ((config,),) = asked(nodes=1, rounds=1)
    codec = get_codec({**config, "step": step})
    rng = np.random.default_rng(0)
    before = rng.normal(0, 0.02, (256, 512)).astype(np.float32)
    moved = rng.normal(0, 1e-3, before.shape).astype(np.float32)
    sizes = []
    for dtype in (np.float32, ml_dtypes.bfloat16):
        model = {"w": before.astype(dtype)}
        trained = {"w": (model["w"].astype(np.float32) + moved).astype(dtype)}
        sizes.append(len(codec.encode(difference(trained, model))[0]))
    assert sizes[1] <= 1.01 * sizes[0]


@pytest.mark.parametrize("value", [0.0, -9.0, 1e30, math.nan])
def test_no_device_changes_what_others_are_asked_for(value) -> None:
    def lying(arrays, node, server_round):
        if node == 2:
            return {"weight": np.full_like(arrays["weight"], value)}
        return moving(arrays, node, server_round)

    found = errors(asked(step=lying, importance_aware=False))
    assert found == pytest.approx([UPLOAD_ERROR] * 3, rel=0.01)


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


@pytest.mark.parametrize(
    "settings",
    [{"nmse": 0.9995}, {"nmse": 1e-200}, {"nmse": 0.5, "rate_spread": 1000.0}],
)
def test_what_a_fleet_is_asked_for_is_within_what_the_codec_takes(settings) -> None:
    """However few devices are important, and however few bits a deadline leaves."""
    method = Caesar(FedAvg(), **settings).method
    for theta in ([0.1] * 20 + [0.6], [0.1] + [0.6] * 20, [0.6]):
        rates = method.rates(np.array(theta), 10**6)
        for codec in method.codecs(np.array(theta), rates, 10**6):
            assert 0 < codec.config["nmse"] < 1
    small = np.full(2, 24.0)  # of a hundred elements, whose message costs what it costs
    method = Caesar(FedAvg()).method
    method._bits = 2.0
    assert (method.rates(np.full(2, 0.3), 100) > small).all()
    for codec in method.codecs(np.full(2, 0.3), small, 100):
        assert codec.config["rate"] == 16.0


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


@pytest.mark.parametrize(("away", "absence"), [([], 1), ([1], 1), ([9, 9, 1], 9)])
def test_a_published_model_is_as_fine_as_what_devices_lack_asks_for(
    away, absence
) -> None:
    downlink = Caesar(FedAvg()).method.downlink
    rng = np.random.default_rng(0)
    weight = np.zeros(SHAPE, np.float32)
    versions = [downlink.publish(downlink.begin({"weight": weight}), 7)]
    held, errors = [downlink.held({})["weight"]], []
    for number in range(8, 28):
        weight = weight + rng.normal(size=SHAPE).astype(np.float32)
        for node, models in enumerate(away * 12):  # who is sent the last model now
            base = versions[max(len(versions) - 1 - models, 0)]
            downlink.frame(node, header(versions[-1], base))
        versions.append(downlink.publish({"weight": weight}, number))
        lacking = weight - held[max(len(held) - absence, 0)]
        held.append(downlink.held({})["weight"])
        errors.append(energy(weight - held[-1]) / energy(lacking))
    # A step is a power of two, and stays where it is up to 1.25 octaves too fine.
    assert min(errors[-10:]) > DOWNLOAD_ERROR / 4**1.25
    assert max(errors[-10:]) < 1.01 * DOWNLOAD_ERROR


def signs(rng, shape):
    return rng.integers(0, 2, shape) * 2.0 - 1.0


def walk(
    downlink, absences: list[list[int]], draw=lambda rng: rng.normal(size=SHAPE)
) -> list[int]:
    """Publish a random walk; return the exponent of each step."""
    rng = np.random.default_rng(0)
    weight = np.zeros(SHAPE, np.float32)
    versions = [downlink.publish(downlink.begin({"weight": weight}), 1)]
    found = []
    for number, away in enumerate(absences, 2):
        for node, models in enumerate(away):
            _, digest = versions[max(len(versions) - 1 - models, 0)]
            base = versions[-1][0] - models, digest
            downlink.frame(node, header(versions[-1], base))
        weight = weight + draw(rng).astype(np.float32)
        versions.append(downlink.publish({"weight": weight}, number))
        found.append(int(downlink.state().arrays["exponents"][0]))
    return found


def test_steps_stay_though_each_round_asks_other_devices() -> None:
    """A change over many models costs what the finest step among them does."""
    rng = np.random.default_rng(1)
    absences = rng.geometric(0.1, size=(70, 5)).tolist()
    found = walk(Caesar(FedAvg()).method.downlink, absences)
    assert found == sorted(found)  # absences grow at first, and none is finer again
    alone = walk(Caesar(FedAvg()).method.downlink, [[1]] * 3)
    assert found[-1] > alone[-1]


@pytest.mark.parametrize("draw", [np.random.Generator.standard_normal, signs])
@pytest.mark.parametrize("octave", [0.0, 0.3, 0.55, 0.8])
def test_what_was_left_unpublished_comes_when_training_stands_still(
    draw, octave
) -> None:
    """Also of changes that are all of one size, and leave as much unpublished."""
    downlink = Caesar(FedAvg()).method.downlink
    walk(downlink, [[1] * 4] * 12, lambda rng: 2**octave * draw(rng, SHAPE))
    final = downlink.held({})["weight"] + 2**octave * draw(
        np.random.default_rng(2), SHAPE
    )
    errors = []
    for number in range(30, 45):
        downlink.publish({"weight": final.astype(np.float32)}, number)
        errors.append(energy(final - downlink.held({})["weight"]))
    assert errors[-1] < 1e-3 * max(errors[0], energy(final) * 1e-3)


def test_some_devices_cannot_say_that_all_hold_old_models() -> None:
    """Not even where they are most of one round."""
    honest, lie = [1] * 5, [10**15] * 3 + [1, 1]
    rounds = [lie if n % 9 == 8 else honest for n in range(40)]
    lying = walk(Caesar(FedAvg()).method.downlink, rounds)
    assert lying == walk(Caesar(FedAvg()).method.downlink, [honest] * 40)


def test_a_step_with_which_models_would_drift_away_is_refused() -> None:
    for sigmas in (0.0, -1.0, 3.47, math.inf, math.nan):
        with pytest.raises(ValueError, match="step_sigmas"):
            Caesar(FedAvg(), step_sigmas=sigmas)


def header(target, base) -> DownloadHeader:
    return DownloadHeader(lineage=1, order=(1, 1), nonce=1, target=target, base=base)


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
    learnt = ("bits_of_error", "ages")
    for name in learnt:
        assert second.method.state().tree[name] == state.tree[name]

    older = {name: own for name, own in state.tree.items() if name not in learnt}
    anew = Caesar(FedAvg()).method
    anew.restore(replace(state, tree=older), {})
    assert anew.state().tree["bits_of_error"] == 0.5
    assert anew.state().tree["ages"] == [1]
    anew.restore(replace(state, tree={**older, "absence": 10**9}), {})
    assert anew.state().tree["ages"] == [5]  # of earlier releases; more is not known
    for name in learnt:
        for damaged in ({}, [], [0], [math.nan], [math.inf], -1, math.nan, "many"):
            tree = {**state.tree, name: damaged}
            with pytest.raises(DamagedStateError, match="malformed"):
                anew.restore(StrategyState(tree, state.arrays), {})
