"""Magnitude pruning through Flower: what travels, what is averaged, what is kept."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.strategies import MagnitudePruning
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.transport import (
    arrays_nbytes,
    record_to_arrays,
    record_to_frame,
)

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid
from .replies import lose_note, put_frame

LOSSY = ("weight", "half")
PRUNABLE = 64 * 48 + 2000


def framed_grid(num_nodes: int = 5, **app) -> LocalGrid:
    return LocalGrid(numpy_app(mods=[compression_mod], **app), num_nodes)


def frames(messages: list) -> list[dict[str, np.ndarray]]:
    """Decode every model that crossed."""
    found = []
    known = CodecState(Layout.of(record_to_arrays(initial_model())))
    for _, content in messages:
        for record in content.array_records.values():
            frame = record_to_frame(record)
            codec = get_codec(inspect_frame(frame).config)
            try:
                found.append(codec.decode(frame, known)[0])
            except CodecError:  # some tensors of the model only
                found.append(codec.decode(frame)[0])
    return found


def zeros(model) -> int:
    return sum(int((model[name] == 0).sum()) for name in LOSSY)


@pytest.mark.parametrize(("rate", "server_rate"), [(0.5, None), (0.3, 0.9), (0.5, 0.6)])
def test_both_directions_are_pruned_by_exactly_their_rate(rate, server_rate) -> None:
    grid = framed_grid()
    strategy = MagnitudePruning(
        FedAvg(fraction_evaluate=0.0),
        prune_rate=rate,
        server_prune_rate=server_rate,
        exclude_1d=False,
    )
    strategy.start(grid, initial_model(), num_rounds=3)
    assert not any(record.dropped for record in strategy.history)
    down, up = frames(grid.sent), frames(grid.received)
    assert len(down) == len(up) == 15
    for model in up:
        found = zeros(model) + int((model["bias"] == 0).sum())
        assert found == int(rate * (PRUNABLE + 48))
    expected = rate if server_rate is None else server_rate
    for model in down:
        found = zeros(model) + int((model["bias"] == 0).sum())
        assert found == int(expected * (PRUNABLE + 48))


def test_a_device_sends_the_model_it_trained_without_its_smallest_weights() -> None:
    def step(arrays, node, server_round):
        trained[node, server_round] = drift(arrays, node, server_round)
        return trained[node, server_round]

    trained: dict = {}
    grid = framed_grid(1, step=step)
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = MagnitudePruning(inner, prune_rate=0.6, exclude_1d=False)
    strategy.start(grid, initial_model(), num_rounds=2)
    for server_round, sent in enumerate(frames(grid.received), 1):
        model = trained[1, server_round]
        everything = np.concatenate(
            [np.ravel(model[n]).astype(np.float32) for n in ("weight", "bias", "half")]
        )
        threshold = np.sort(np.abs(everything))[int(0.6 * len(everything))]
        for name in ("weight", "bias", "half"):
            # Of equal float16 values at the threshold, the rate takes some.
            off = np.abs(model[name]) != threshold
            kept = np.where(np.abs(model[name]) < threshold, 0, model[name])
            np.testing.assert_array_equal(sent[name][off], kept[off])
        assert sent["steps"] == model["steps"]


def test_the_model_is_what_devices_get() -> None:
    seen = {}

    def evaluate(server_round, arrays):
        seen[server_round] = record_to_arrays(arrays)
        return MetricRecord({"accuracy": 0.5})

    grid = framed_grid(3)
    strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0), prune_rate=0.8, bits=4)
    result = strategy.start(grid, initial_model(), num_rounds=3, evaluate_fn=evaluate)
    down = frames(grid.sent)[::3]
    for server_round, model in enumerate(down):
        for name, array in model.items():
            np.testing.assert_array_equal(array, seen[server_round][name])
            assert array.dtype == initial_model()[name].numpy().dtype
    for name, array in record_to_arrays(result.arrays).items():
        np.testing.assert_array_equal(array, seen[3][name])
    assert zeros(seen[3]) >= int(0.8 * 64 * 48)


def test_without_the_servers_pruning_the_mean_has_every_weight_that_one_sent() -> None:
    grid = framed_grid(3)
    inner = FedAvg(fraction_evaluate=0.0)
    strategy = MagnitudePruning(inner, prune_rate=0.9, server_prune_rate=0)
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert zeros(frames(grid.sent)[0]) == 0
    sent = [model["weight"] != 0 for model in frames(grid.received)]
    mean = result.arrays["weight"].numpy() != 0
    np.testing.assert_array_equal(mean, np.logical_or.reduce(sent))
    assert mean.sum() > sent[0].sum()


def dyadic(arrays, node: int, server_round: int) -> dict[str, np.ndarray]:
    """Drift to multiples of 1/64, whose means by quarters no float rounds."""
    out = drift(arrays, node, server_round)
    rounded = {n: np.rint(64 * out[n]) / 64 for n in ("weight", "bias", "half")}
    return out | {n: array.astype(out[n].dtype) for n, array in rounded.items()}


def test_without_pruning_it_is_flowers_fedavg_to_the_bit() -> None:
    class Quarters(FedAvg):  # of the weight: nodes 1 and 3 have 10 and 30 examples
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            return [m for m in messages if m.metadata.dst_node_id != 2]

    def run(strategy, grid):
        return strategy.start(grid, initial_model(), num_rounds=4).arrays

    ours = run(MagnitudePruning(Quarters(), prune_rate=0), framed_grid(3, step=dyadic))
    plain = run(Quarters(), LocalGrid(numpy_app(step=dyadic), 3))
    for name in ("weight", "bias", "half"):
        assert ours[name].numpy().tobytes() == plain[name].numpy().tobytes(), name


@pytest.mark.parametrize("inner", [FedAvg, FedMedian, FedAdam])
def test_without_pruning_it_is_the_inner_strategy(inner) -> None:
    def run(strategy, grid):
        random.seed(0)
        return strategy.start(grid, initial_model(), num_rounds=4).arrays

    options = {"fraction_train": 0.6}
    ours = run(MagnitudePruning(inner(**options), prune_rate=0), framed_grid(7))
    plain = run(inner(**options), LocalGrid(numpy_app(), 7))
    for name in ("weight", "bias", "half"):
        tolerance = 3e-2 if name == "half" else 2e-5
        x, y = ours[name].numpy(), plain[name].numpy()
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_messages_shrink_both_ways() -> None:
    def nbytes(**settings):
        grid = framed_grid(4)
        strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0), **settings)
        strategy.start(grid, initial_model(), num_rounds=2)
        return [
            sum(arrays_nbytes(content) for _, content in messages)
            for messages in (grid.sent, grid.received)
        ]

    sizes = [
        nbytes(prune_rate=0),
        nbytes(prune_rate=0.5),
        nbytes(prune_rate=0.5, bits=8),
        nbytes(prune_rate=0.5, bits=4),
        nbytes(prune_rate=0.99, bits=1),
    ]
    for larger, smaller in pairwise(sizes):
        assert smaller[0] < larger[0]
        assert smaller[1] < larger[1]


def test_a_pruned_weight_comes_back_when_training_makes_it_large() -> None:
    def step(arrays, node, server_round):
        out = {name: np.array(value) for name, value in arrays.items()}
        if server_round == 2:
            out["weight"][0] += 50
        return out

    grid = framed_grid(3, step=step)
    strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0), prune_rate=0.9)
    result = strategy.start(grid, initial_model(), num_rounds=3)
    before, after = frames(grid.sent[:1])[0], result.arrays["weight"].numpy()
    assert (before["weight"][0] == 0).sum() > 30
    assert (after[0] > 40).all()
    assert zeros({"weight": after, "half": np.ones(1)}) == int(0.9 * 64 * 48)


@pytest.mark.parametrize(("inner", "bits"), [(FedAvg, 4), (FedAdam, None)])
def test_a_resumed_run_is_the_uninterrupted_one(inner, bits, tmp_path: Path) -> None:
    def run(folder: Path, *stops: int):
        grid = framed_grid(4)
        for stop in stops:
            strategy = MagnitudePruning(inner(), bits=bits, checkpoint=folder)
            result = strategy.start(grid, initial_model(), num_rounds=stop)
        return result.arrays, strategy

    whole, first = run(tmp_path / "whole", 4)
    resumed, strategy = run(tmp_path / "parts", 1, 2, 4)
    for name in whole:
        assert whole[name].numpy().tobytes() == resumed[name].numpy().tobytes(), name
    assert not any(record.dropped for record in strategy.history)
    last = [record.bytes_down for record in first.history[-4:]]
    assert [record.bytes_down for record in strategy.history] == last


def test_a_lost_model_is_gone_and_stands_in_no_residual() -> None:
    def lose(reply: Message, node: int) -> Message | None:
        server_round = (len(grid.sent) + 2) // 3
        return None if node == 2 and server_round in (1, 2, 4) else reply

    grid = framed_grid(3)
    grid.tamper = lose
    strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0))
    strategy.start(grid, initial_model(), num_rounds=6, timeout=0.1)
    assert [set(r.dropped) for r in strategy.history] == [
        {2},
        {2},
        set(),
        {2},
        set(),
        set(),
    ]
    for context in grid.contexts.values():
        (lineage,) = {int(key.split(".")[1], 16) for key in context.state}
        state = ContextStore(context.state).load(lineage)
        assert state is not None
        assert not any(np.any(array) for array in state.residual.values())


def test_a_round_after_a_lost_reply_is_as_if_it_had_arrived() -> None:
    def step(arrays, node, server_round):
        return drift(record_to_arrays(initial_model()), node, server_round)

    def last(lost: int):
        grid = framed_grid(3, step=step)
        grid.tamper = lambda reply, node: None if len(grid.sent) == lost else reply
        strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0))
        result = strategy.start(grid, initial_model(), num_rounds=2, timeout=0.1)
        assert len(strategy.history[0].dropped) == (lost > 0)
        return result.arrays["weight"].numpy()

    np.testing.assert_allclose(last(2), last(0), atol=1e-6)


def replaced(reply: Message, codec: dict, arrays: dict) -> None:
    info = inspect_frame(record_to_frame(reply.content["arrays"]))
    frame, _ = get_codec(codec).encode(arrays)
    frame = stamp(frame, lineage=info.lineage, base_version=info.base_version)
    put_frame(reply, frame)


def bad_frame(name: str, reply: Message) -> None:
    arrays = {n: np.array(a) for n, a in record_to_arrays(initial_model()).items()}
    frame = record_to_frame(reply.content["arrays"])
    if name == "truncated":
        put_frame(reply, frame[:-30])
    elif name == "flipped":
        changed = frame[:300] + bytes([frame[300] ^ 1]) + frame[301:]
        put_frame(reply, changed)
    elif name == "other rate":
        replaced(reply, {"id": "prune", "prune_rate": 0.1}, arrays)
    elif name == "other codec":
        replaced(reply, {"id": "dense"}, arrays)
    elif name == "larger":
        arrays["weight"] = np.zeros((4096, 4096), np.float32)
        replaced(reply, {"id": "prune", "prune_rate": 0.5}, arrays)
    else:
        lose_note(reply)


@pytest.mark.parametrize(
    "name",
    ["truncated", "flipped", "other rate", "other codec", "larger", "no header"],
)
def test_a_hostile_model_costs_only_itself(name: str) -> None:
    def run(tamper):
        grid = framed_grid(4)
        grid.tamper = tamper
        strategy = MagnitudePruning(FedAvg(fraction_evaluate=0.0))
        result = strategy.start(grid, initial_model(), num_rounds=2, timeout=0.1)
        return result.arrays["weight"].numpy(), strategy.history

    def harm(reply: Message, node: int) -> Message:
        if node == 3:
            bad_frame(name, reply)
        return reply

    harmed, history = run(harm)
    assert [set(record.dropped) for record in history] == [{3}, {3}]
    silent, _ = run(lambda reply, node: None if node == 3 else reply)
    np.testing.assert_allclose(harmed, silent, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prune_rate": 1.1}, "prune_rate"),
        ({"prune_rate": float("nan")}, "prune_rate"),
        ({"server_prune_rate": -0.1}, "server_prune_rate"),
        ({"bits": 9}, "bits"),
        ({"levels": "log"}, "levels"),
        ({"exclude_1d": 1}, "exclude_1d"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MagnitudePruning(FedAvg(), **settings)
