"""CAFe: the paper's recursion, restarts, and devices that cannot predict."""

from __future__ import annotations

import random

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian

from flwr_caesar.clients import CompressionMod, compression_mod
from flwr_caesar.codec import inspect_frame
from flwr_caesar.codec.contract.state import NO_DIGEST
from flwr_caesar.strategies import CAFe
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import (
    PREDICTION_KEY,
    Abilities,
    is_frame,
    plain_record,
    record_to_arrays,
    record_to_frame,
)

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid

NODES, DENSITY = 4, 0.1
LOSSY = ("weight", "half")


def run(strategy, rounds: int = 5, *, grid: LocalGrid | None = None):
    random.seed(0)
    grid = grid or LocalGrid(numpy_app(mods=[compression_mod]), NODES)
    result = strategy.start(grid, initial_model(), num_rounds=rounds, timeout=1)
    return record_to_arrays(result.arrays), grid


def uploads(grid: LocalGrid) -> list[bytes]:
    return [
        record_to_frame(record)
        for kind, content in grid.received
        for record in content.array_records.values()
        if kind == "train" and is_frame(record)
    ]


def is_predicted(frame: bytes) -> bool:
    return inspect_frame(frame).state_digest != NO_DIGEST


def largest(x: np.ndarray) -> np.ndarray:
    """Return the largest elements in float16, the others as zeros."""
    flat, kept = x.reshape(-1), np.zeros(x.size, np.float32)
    count = int(np.ceil(DENSITY * x.size))
    best = np.argsort(-np.abs(flat), kind="stable")[:count]
    kept[best] = flat[best].astype(np.float16)
    return kept.reshape(x.shape)


def published(rounds: int) -> dict[str, np.ndarray]:
    """Return the model of the paper's Algorithm 1, weighted as FedAvg does."""
    x = {n: a.astype(np.float32) for n, a in record_to_arrays(initial_model()).items()}
    x.pop("steps")
    d = {name: np.zeros_like(array) for name, array in x.items()}
    weights = [10.0 * node for node in range(1, NODES + 1)]
    for server_round in range(1, rounds + 1):
        given = {n: a.astype(np.float16) if n == "half" else a for n, a in x.items()}
        updates = []
        for node in range(1, NODES + 1):
            trained = drift(given, node, server_round)
            update = {n: trained[n].astype("f4") - given[n].astype("f4") for n in x}
            for name in LOSSY:
                update[name] = d[name] + largest(update[name] - d[name])
            updates.append(update)
        d = {n: np.average([u[n] for u in updates], 0, weights) for n in x}
        x = {n: (given[n] + d[n]).astype(np.float32) for n in x}
    return x


def test_it_is_the_published_recursion() -> None:
    found, _ = run(CAFe(FedAvg(fraction_evaluate=0.0), density=DENSITY))
    expected = published(5)
    np.testing.assert_allclose(found["weight"], expected["weight"], atol=2e-5)
    np.testing.assert_allclose(found["bias"], expected["bias"], atol=2e-5)
    # Float16 models are rounded each round: a tie here and there goes another way.
    close = np.isclose(found["half"].astype("f4"), expected["half"], atol=3e-3)
    assert close.mean() > 0.97


def test_a_prediction_travels_from_the_second_round_on_and_no_app_sees_it() -> None:
    seen: list[set[str]] = []

    def looking(message, context, call_next):
        seen.append(set(message.content.array_records))
        return call_next(message, context)

    grid = LocalGrid(numpy_app(mods=[compression_mod, looking]), NODES)
    run(CAFe(FedAvg(), density=DENSITY), rounds=3, grid=grid)
    assert set(map(frozenset, seen)) == {frozenset({"arrays"})}
    told = [PREDICTION_KEY in c for kind, c in grid.sent if kind == "train"]
    assert told == [False] * NODES + [True] * 2 * NODES
    assert [is_predicted(f) for f in uploads(grid)] == told
    assert not any(PREDICTION_KEY in c for kind, c in grid.sent if kind != "train")
    shared = {id(c[PREDICTION_KEY]) for _, c in grid.sent if PREDICTION_KEY in c}
    assert len(shared) == 2, "one object a round, which the SuperLink stores once"


@pytest.mark.parametrize("downlink", ["whole", "lattice"])
def test_a_restarted_server_predicts_on(downlink, tmp_path) -> None:
    def strategy(folder):
        inner = FedAvg(fraction_evaluate=0.0)
        return CAFe(inner, density=DENSITY, downlink=downlink, checkpoint=folder)

    grid = LocalGrid(numpy_app(mods=[compression_mod]), NODES)
    run(strategy(tmp_path / "stopped"), rounds=2, grid=grid)
    resumed, _ = run(strategy(tmp_path / "stopped"), rounds=4, grid=grid)
    whole, _ = run(strategy(tmp_path / "whole"), rounds=4)
    for name, array in whole.items():
        assert array.tobytes() == resumed[name].tobytes(), name
    assert [is_predicted(f) for f in uploads(grid)[-2 * NODES :]] == [True] * 2 * NODES


def test_a_damaged_prediction_is_said_so() -> None:
    method = CAFe(FedAvg()).method
    damaged = StrategyState({}, {"prediction/weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(DamagedStateError, match="last mean update"):
        method.restore(damaged, {})


def test_a_device_without_the_part_takes_part_without_a_prediction() -> None:
    modest = CompressionMod(can=Abilities(frozenset({"dense"})))

    def mod(message, context, call_next):
        own = modest if context.node_id == 1 else compression_mod
        return own(message, context, call_next)

    strategy = CAFe(FedAvg(fraction_evaluate=0.0), density=DENSITY)
    _, grid = run(strategy, grid=LocalGrid(numpy_app(mods=[mod]), NODES))
    last = uploads(grid)[-NODES:]
    assert sorted(inspect_frame(frame).config["id"] for frame in last) == [
        "dense",
        *["predicted"] * 3,
    ]
    assert [record.dropped for record in strategy.history[1:]] == [{}] * 4


@pytest.mark.parametrize("inner", [FedMedian, FedAdam])
def test_it_predicts_updates_and_not_what_the_server_makes_of_them(inner) -> None:
    strategy = CAFe(inner(fraction_evaluate=0.0), compressor="quantized", density=0.5)
    _, grid = run(strategy, rounds=2)
    model = record_to_arrays(initial_model())
    trained = [drift(model, node, 1)["weight"] for node in range(1, NODES + 1)]
    weights = None if inner is FedMedian else [1, 2, 3, 4]
    update = np.average(trained, axis=0, weights=weights) - model["weight"]
    if inner is FedMedian:
        update = np.median(trained, axis=0) - model["weight"]
    sent = [c for kind, c in grid.sent if kind == "train" and PREDICTION_KEY in c]
    told = record_to_arrays(plain_record(sent[0][PREDICTION_KEY]))["weight"].reshape(
        update.shape
    )
    assert np.corrcoef(told.ravel(), update.ravel())[0, 1] > 0.9
    assert 0.5 < np.linalg.norm(told) / np.linalg.norm(update) < 1.1
