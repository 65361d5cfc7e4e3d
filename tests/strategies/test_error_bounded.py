"""ErrorBounded: memories in lock-step, a bound that holds, nothing applied wrongly."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAdam, FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import Layout
from flwr_caesar.codec.codecs.error_bounded import ErrorBoundedCodec as Codec
from flwr_caesar.strategies import ErrorBounded
from flwr_caesar.strategies.uplink_memory import UplinkMemory
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.transport import DeviceReport

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid
from .memories import (
    assert_lock_step,
    device_state,
    dropped,
    predicted,
    run_in_lock_step,
)
from .replies import put_note

REL = 0.02


class Work:
    """Updates that share a drift of the device's own, and the sum of them."""

    def __init__(self, nodes: int) -> None:
        self.computed = {node: np.zeros((64, 48)) for node in range(1, nodes + 1)}
        self.bounds = dict.fromkeys(self.computed, 0.0)

    def __call__(self, arrays, node, server_round):
        drift = np.random.default_rng(node).normal(size=(64, 48))
        noise = np.random.default_rng([node, server_round]).normal(size=(64, 48))
        out = {name: np.array(value) for name, value in arrays.items()}
        out["weight"] = arrays["weight"] + (drift + 0.2 * noise).astype(np.float32)
        update = out["weight"] - arrays["weight"]
        self.computed[node] += update
        self.bounds[node] += REL * float(update.max() - update.min())
        return out


def strategy_of(nodes: int, fraction: float = 1.0, **options) -> ErrorBounded:
    inner = FedAvg(
        fraction_train=fraction,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=nodes,
    )
    return ErrorBounded(inner, rel=REL, check_bound=True, **options)


def assert_nothing_lost(result, grid: LocalGrid, work: Work, node: int = 1) -> None:
    """Of one device alone: what was applied and is kept is what was computed."""
    start = initial_model()["weight"].numpy()
    applied = result.arrays["weight"].numpy().astype(np.float64) - start
    state = device_state(grid, node)
    residual = state.residual.get("weight", np.zeros((64, 48)))
    error = np.abs(applied + residual - work.computed[node]).max()
    assert error <= 1.5 * work.bounds[node]  # a sum that was returned has a wider range


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
def test_it_learns_what_the_inner_strategy_learns(inner, history: bool) -> None:
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 5)
    strategy = ErrorBounded(inner(), rel=1e-4, history=history, check_bound=True)
    result = strategy.start(grid, initial_model(), num_rounds=4)
    assert not any(dropped(strategy))
    assert 0 < strategy.error_over_bound <= 1
    plain = inner().start(LocalGrid(numpy_app(), 5), initial_model(), num_rounds=4)
    for name in ("weight", "bias", "half", "steps"):
        mine, meant = result.arrays[name].numpy(), plain.arrays[name].numpy()
        # Adaptive optimisers divide by the size of the update, its error included.
        tolerance = 3e-2 if inner is FedAdam or name == "half" else 1e-3
        np.testing.assert_allclose(mine, meant, atol=tolerance, err_msg=name)


def test_history_predicts_from_the_second_upload_on_and_saves_bytes() -> None:
    sizes = {}
    for history in (True, False):
        random.seed(0)
        work = Work(3)
        grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 3)
        strategy = strategy_of(3, history=history)
        strategy.start(grid, initial_model(), num_rounds=4)
        assert predicted(grid) == [False] * 3 + [history] * 9
        sizes[history] = strategy.history[-1].bytes_up
        assert_lock_step(strategy, grid, forgotten=0 if history else 3)
        kept = device_state(grid, 1)
        assert bool(kept.codec_arrays) == history
        if not history:
            assert strategy._exchange.memory.nbytes == 0
    assert sizes[True] < 0.95 * sizes[False]


def test_memories_stay_in_step_when_few_take_part_and_replies_are_lost() -> None:
    random.seed(3)
    work = Work(6)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 6)
    strategy = strategy_of(6, fraction=0.5)
    run_in_lock_step(strategy, grid, 16)
    assert strategy.error_over_bound <= 1


@pytest.mark.parametrize("lost", [(), (2,), (2, 3), (1, 4, 5, 9), (10,)])
def test_what_a_lost_reply_carried_comes_with_the_next(lost: tuple[int, ...]) -> None:
    work = Work(1)
    count = 0

    def lose(reply: Message, node: int) -> Message | None:
        nonlocal count
        count += 1
        return None if count in lost else reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=lose)
    strategy = strategy_of(1)
    result = strategy.start(grid, initial_model(), num_rounds=11, timeout=0.1)
    assert [bool(d) for d in dropped(strategy)] == [n in lost for n in range(1, 12)]
    assert_nothing_lost(result, grid, work)
    # The server still holds the state before a lost upload, and so does the device.
    first = 1 + (1 in lost)
    expected = [n > first for n in range(1, 12) if n not in lost]
    assert predicted(grid) == expected


def test_the_server_remembers_within_its_cap_and_who_is_forgotten_sends_whole() -> None:
    size = Codec(rel=REL).memory_nbytes(Layout.of(arrays_of(initial_model())))
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=Work(5)), 5)
    strategy = strategy_of(5, upload_memory=3 * size + size // 2)
    strategy.start(grid, initial_model(), num_rounds=5)
    assert not any(dropped(strategy))
    assert strategy._exchange.memory.nbytes == 3 * size
    by_round = [sum(predicted(grid)[5 * r : 5 * r + 5]) for r in range(5)]
    assert by_round == [0, 3, 3, 3, 3]
    assert_lock_step(strategy, grid, forgotten=2)


def test_a_memory_is_as_large_as_is_said() -> None:
    arrays = arrays_of(initial_model())
    codec = Codec(rel=REL)
    update = {"weight": arrays["weight"], "half": arrays["half"].astype(np.float32)}
    update |= {name: arrays[name] for name in ("bias", "steps")}
    _, state = codec.encode({name: update[name] for name in arrays})
    said = codec.memory_nbytes(Layout.of(arrays))
    assert said == sum(array.nbytes for array in state.arrays.values())
    assert Codec(exact_below=10**6).memory_nbytes(Layout.of(arrays)) == 0


def test_a_restarted_server_asks_nothing_of_the_devices(tmp_path: Path) -> None:
    work = Work(1)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1)
    for stop in (3, 6, 9):
        strategy = strategy_of(1, checkpoint=tmp_path)
        result = strategy.start(grid, initial_model(), num_rounds=stop)
        assert not any(dropped(strategy))
    assert predicted(grid) == [False] + [True] * 8
    assert_nothing_lost(result, grid, work)


@pytest.mark.parametrize("history", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, history: bool) -> None:
    def run(folder: Path, *stops: int):
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
        for stop in stops:
            strategy = ErrorBounded(FedAdam(), history=history, checkpoint=folder)
            result = strategy.start(grid, initial_model(), num_rounds=stop)
        return result.arrays

    whole = run(tmp_path / "whole", 6)
    resumed = run(tmp_path / "parts", 2, 4, 6)
    for name in whole:
        np.testing.assert_array_equal(whole[name].numpy(), resumed[name].numpy())


def test_a_frame_that_expects_another_state_is_refused_and_the_next_is_whole() -> None:
    work = Work(1)
    count = 0

    def forget(reply: Message, node: int) -> Message:
        nonlocal count
        count += 1
        if count == 4:  # between request and reply
            strategy._exchange.memory = UplinkMemory(1 << 20)
        return reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=forget)
    strategy = strategy_of(1)
    result = strategy.start(grid, initial_model(), num_rounds=8)
    reasons = dropped(strategy)
    assert [bool(reason) for reason in reasons] == [n == 4 for n in range(1, 9)]
    assert "continues from codec state" in reasons[3][1]
    assert predicted(grid) == [False, True, True, True, False, True, True, True]
    assert_nothing_lost(result, grid, work)


def test_a_device_with_another_memory_than_the_server_sends_whole() -> None:
    """It goes on from another state than the one its last upload was coded from."""
    work = Work(1)
    count = 0

    def change(reply: Message, node: int) -> Message:
        nonlocal count
        count += 1
        if count == 4:
            state = device_state(grid, 1)
            arrays = {k: np.array(v) for k, v in state.codec_arrays.items()}
            arrays["previous/weight"][0, 0] += 1
            # As it stood before the upload in doubt, which was coded from it.
            broken = replace(state, codec_arrays=arrays, pending=())
            ContextStore(grid.contexts[1].state).save(broken)
        return reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=change)
    strategy = strategy_of(1)
    strategy.start(grid, initial_model(), num_rounds=7)
    assert predicted(grid)[:4] == [False, True, True, True]
    assert strategy.error_over_bound <= 1
    # The server applied an upload that this state never made: a copy of the device.
    # What it sends from now on is a new device's.
    assert not predicted(grid)[4]
    assert predicted(grid)[-1]


def test_a_device_remembers_in_its_folder_and_starts_anew_without_it(
    tmp_path: Path,
) -> None:
    def wipe(reply: Message, node: int) -> Message:
        if len(grid.sent) == 4:
            shutil.rmtree(tmp_path / "device")
        return reply

    work = Work(1)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=wipe)
    grid.contexts[1].node_config["state-dir"] = str(tmp_path / "device")
    strategy = strategy_of(1)
    strategy.start(grid, initial_model(), num_rounds=8)
    asked_anew = [bool(reason) for reason in dropped(strategy)]
    # A part of the model was sent to who had the rest no more.
    assert asked_anew == [n == 4 for n in range(8)]
    assert predicted(grid) == [False, True, True, True, False, True, True]
    assert strategy.error_over_bound <= 1


def test_a_bound_in_units_of_the_update_holds_for_every_tensor() -> None:
    def step(arrays, node, server_round):
        rng = np.random.default_rng([node, server_round])
        out = {name: np.array(value) for name, value in arrays.items()}
        out["weight"] = arrays["weight"] + rng.normal(size=(64, 48)).astype(np.float32)
        return out

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), 1)
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = ErrorBounded(inner, abs_bound=0.05, check_bound=True)
    models = [initial_model()["weight"].numpy()]
    strategy.start(
        grid,
        initial_model(),
        num_rounds=3,
        evaluate_fn=lambda _, arrays: models.append(arrays["weight"].numpy()),
    )
    for server_round in (1, 2, 3):
        rng = np.random.default_rng([1, server_round])
        update = rng.normal(size=(64, 48)).astype(np.float32)
        applied = models[server_round + 1] - models[server_round]
        assert np.abs(applied - update).max() <= 0.05 + 1e-5
    assert 0.5 < strategy.error_over_bound <= 1


def test_error_feedback_keeps_what_the_bound_let_go() -> None:
    work = Work(1)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1)
    strategy = strategy_of(1, error_feedback=True)
    result = strategy.start(grid, initial_model(), num_rounds=8)
    start = initial_model()["weight"].numpy()
    applied = result.arrays["weight"].numpy() - start
    residual = device_state(grid, 1).residual["weight"]
    assert np.abs(residual).max() > 1e-3
    np.testing.assert_allclose(applied + residual, work.computed[1], atol=2e-4)
    assert not any(dropped(strategy))


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({}, "does not say"),
        ({"error-over-bound": 44.0}, "44 times its bound"),
        ({"error-over-bound": float("inf")}, "error-over-bound' is inf"),
        ({"error-over-bound": float("nan")}, "error-over-bound' is nan"),
        ({"error-over-bound": -1.0}, "-1 times its bound"),
        ({"error-over-bound": "0"}, "does not say"),
        ({"decoded": "00"}, "decodes differently"),
    ],
)
def test_an_upload_beyond_its_bound_is_refused(report: dict, reason: str) -> None:
    work = Work(1)

    def claim(reply: Message, node: int) -> Message:
        if len(grid.sent) == 2:
            told, header = DeviceReport.read(reply.content)
            part = {**told.part, **report} if report else {}
            put_note(reply, DeviceReport(part=part).note(header))
        return reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=claim)
    strategy = strategy_of(1)
    result = strategy.start(grid, initial_model(), num_rounds=4)
    reasons = dropped(strategy)
    assert [bool(found) for found in reasons] == [False, True, False, False]
    assert reason in reasons[1][1]
    assert_nothing_lost(result, grid, work)
    assert strategy.error_over_bound <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rel": 0.0}, "rel"),
        ({"rel": 1.0}, "rel"),
        ({"abs_bound": -1.0}, "abs_bound"),
        ({"upload_memory": -1}, "upload_memory"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ErrorBounded(FedAvg(), **settings)


def arrays_of(record) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}
