"""What one device may do to the model, and to the others."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedYogi,
    MultiKrum,
    Strategy,
)

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.update import length
from flwr_caesar.records import as_reason
from flwr_caesar.strategies import (
    Caesar,
    CompressedStrategy,
    ErrorBounded,
    FedComLoc,
    Guard,
    TopK,
    Uncompressed,
)
from flwr_caesar.strategies.guard import Bench
from flwr_caesar.strategies.inner import snapshot
from flwr_caesar.strategies.metrics import read_weight
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import UploadHeader
from flwr_caesar.transport import DeviceReport, frame_to_record, with_note

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid, Tamper
from .replies import claim as say
from .replies import put_frame

VICTIM = 3
NODES = 6


def run(
    strategy: Any,
    *,
    value: float | None = None,
    tamper: Tamper | None = None,
    rounds: int = 4,
    bad_rounds: range = range(1, 99),
) -> dict[str, np.ndarray]:
    """Train with one device that returns a constant, or whose replies are changed."""

    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if node == VICTIM and value is not None and server_round in bad_rounds:
            out["weight"] = np.full_like(out["weight"], value)
        return out

    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), NODES, tamper=tamper)
    result = strategy.start(grid, initial_model(), num_rounds=rounds)
    return {name: array.numpy() for name, array in result.arrays.items()}


def on_victim(change: Any) -> Tamper:
    def tamper(reply: Message, node: int) -> Message:
        if node == VICTIM and reply.has_content() and "arrays" in reply.content:
            change(reply)
        return reply

    return tamper


def refused(strategy: CompressedStrategy) -> list[set[int]]:
    return [set(r.dropped) for r in strategy.history if r.phase == "train"]


STRATEGIES = {
    "caesar": Caesar,
    "paper": lambda inner, **kw: Caesar(inner, codec="paper", **kw),
    "bounded": ErrorBounded,
    "lattice down": lambda inner, **kw: ErrorBounded(inner, downlink="lattice", **kw),
    "plain": Uncompressed,
    "dense": CompressedStrategy,
}


@pytest.mark.parametrize("guards", [True, False])
@pytest.mark.parametrize("inner", [FedAvg, FedYogi, FedMedian])
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("value", [1e10, 3e38])
def test_no_finite_update_ends_a_run_or_leaves_a_model_that_is_not(
    name, inner, value, guards, tmp_path
) -> None:
    folder = tmp_path / "checkpoint"

    def make(rounds: int, *, hostile: bool) -> dict[str, np.ndarray]:
        strategy = STRATEGIES[name](
            inner(fraction_evaluate=0.0), checkpoint=folder, guards=guards
        )
        return run(strategy, value=value if hostile else None, rounds=rounds)

    make(3, hostile=True)
    with SqliteLedger(folder) as ledger:
        checkpoint = ledger.checkpoint()
    if checkpoint is not None:
        for array in checkpoint.model.values():
            assert np.isfinite(array).all()
    after = make(6, hostile=False)
    for array in after.values():
        assert np.isfinite(array).all()
    if guards:
        assert np.abs(after["weight"]).max() < 4 * honest_peak(name, inner) + 4


@cache
def honest_peak(name: str, inner: type[Strategy]) -> float:
    """Return the largest weight without a hostile device."""
    honest = run(STRATEGIES[name](inner(fraction_evaluate=0.0)), rounds=6)
    return float(np.abs(honest["weight"]).max())


def test_the_culprit_is_found_without_guards_too() -> None:
    """Where the sum overflows the model, who contributes most is left out."""
    base = initial_model()

    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if node == VICTIM:
            out["half"] = np.full_like(out["half"], 6e4)
        return out

    strategy = CompressedStrategy(
        FedAvgM(fraction_evaluate=0.0, server_learning_rate=20.0), guards=False
    )
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), NODES)
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert set(strategy.history[0].dropped) == {VICTIM}
    assert "contributes most" in strategy.history[0].dropped[VICTIM]
    moved = result.arrays["half"].numpy().astype(np.float64)
    assert np.isfinite(moved).all()
    assert not np.array_equal(moved, base["half"].numpy())


def test_an_update_that_is_too_long_is_refused_and_the_others_count() -> None:
    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0.0))
    got = run(strategy, value=1e4, rounds=1)
    assert refused(strategy) == [{VICTIM}]
    assert "times as long as the median" in strategy.history[0].dropped[VICTIM]
    missing = CompressedStrategy(FedAvg(fraction_evaluate=0.0))

    def silent(reply: Message, node: int) -> Message | None:
        return None if node == VICTIM else reply

    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), NODES, tamper=silent)
    alone = missing.start(grid, initial_model(), num_rounds=1, timeout=0.05)
    for name, array in got.items():
        np.testing.assert_allclose(array, alone.arrays[name].numpy(), atol=1e-4)


def test_a_restarted_server_remembers_how_long_updates_are(tmp_path) -> None:
    def make() -> TopK:
        return TopK(FedAvg(fraction_evaluate=0.0), checkpoint=tmp_path / "c")

    def only_the_victim(reply: Message, node: int) -> Message:
        if node != VICTIM:
            return Message(Error(2, "away"), reply_to=reply)
        return reply

    run(make(), rounds=3)
    strategy = make()
    run(strategy, value=1e10, tamper=only_the_victim, rounds=4)
    assert "times as long as the median" in strategy.history[-1].dropped[VICTIM]


def test_guards_are_off_in_one_word() -> None:
    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0.0), guards=False)
    got = run(strategy, value=1e4, rounds=1)
    assert refused(strategy) == [set()]
    assert got["weight"].max() > 1000


def test_one_device_is_at_most_a_share_of_the_mean() -> None:
    def boast(reply: Message) -> None:
        reply.content["metrics"]["num-examples"] = 1e12

    def weight(**options: Any) -> float:
        strategy = CompressedStrategy(FedAvg(fraction_evaluate=0.0), **options)
        got = run(strategy, value=100.0, rounds=1, tamper=on_victim(boast))
        assert refused(strategy) == [set()]
        return float(got["weight"].mean())

    assert weight(guards=False) == pytest.approx(100, abs=0.1)
    limited = weight(guards=Guard(max_share=0.5, max_norm=1e6))
    assert limited == pytest.approx(50, abs=1)


@pytest.mark.parametrize("value", [1e39, -1.0, math.inf, math.nan, 1e16])
def test_weights_nobody_has_are_refused(value) -> None:
    def claim(reply: Message) -> None:
        reply.content["metrics"] = MetricRecord({"num-examples": value, "loss": 0.1})

    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=on_victim(claim), rounds=1)
    assert refused(strategy) == [{VICTIM}]


def test_one_device_is_at_most_a_share_where_all_updates_are_given() -> None:
    """Flower's MultiKrum weighs what it selects by what devices claim."""

    def boast(reply: Message) -> None:
        reply.content["metrics"]["num-examples"] = 1e12

    def share(**options: Any) -> float:
        inner = MultiKrum(
            num_malicious_nodes=0, num_nodes_to_select=6, fraction_evaluate=0.0
        )
        strategy = CompressedStrategy(inner, **options)
        seen: list[float] = []

        def aggregate(contents: list[RecordDict], key: str) -> MetricRecord:
            weights = [float(c["metrics"][key]) for c in contents]
            seen.append(max(weights) / sum(weights))
            return MetricRecord({})

        inner.train_metrics_aggr_fn = aggregate
        run(strategy, rounds=1, tamper=on_victim(boast))
        return seen[0]

    assert share(guards=False) > 0.99
    assert share(guards=Guard(max_share=0.5)) == pytest.approx(0.5)


def test_one_device_is_at_most_a_share_of_the_means_of_metrics() -> None:
    def boast(reply: Message, node: int) -> Message:
        if node == VICTIM and reply.has_content():
            metrics = reply.content["metrics"]
            metrics["num-examples"] = 1e12
            metrics["loss" if "loss" in metrics else "norm"] = -4e6
        return reply

    strategy = CompressedStrategy(FedAvg(), guards=Guard(max_share=0.5))
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), NODES, tamper=boast)
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(-2e6, rel=1e-3)
    assert result.evaluate_metrics_clientapp[1]["norm"] == pytest.approx(-2e6, rel=0.05)


@pytest.mark.parametrize("make", [CompressedStrategy, Uncompressed])
def test_integers_are_bounded_too(make, tmp_path) -> None:
    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if node == VICTIM and server_round in bad:
            out["steps"] = np.array(2**62, np.int64)
        return out

    def train(rounds: int) -> tuple[float, list[set[int]], str]:
        strategy = make(FedAvg(fraction_evaluate=0.0), checkpoint=tmp_path / "c")
        random.seed(0)
        app = numpy_app(mods=[compression_mod], step=step)
        result = strategy.start(LocalGrid(app, NODES), initial_model(), rounds)
        counter = float(result.arrays["steps"].numpy())
        return counter, refused(strategy), str(strategy.history[-1].dropped)

    bad = {1, 3}
    counter, dropped, _ = train(2)
    assert counter < 100
    assert dropped == [{VICTIM}, set()]
    counter, dropped, why = train(3)  # a restarted server
    assert counter < 100
    assert dropped == [{VICTIM}]
    assert "integers" in why


def test_a_quorum_is_reached_by_the_next_whole_reply() -> None:
    """Half of three is two."""

    def slow(reply: Message, node: int) -> Message | None:
        return None if node == 3 else reply

    strategy = TopK(FedAvg(fraction_evaluate=0.0), quorum=0.5)
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3, tamper=slow)
    strategy.start(grid, initial_model(), num_rounds=1, timeout=30)
    assert refused(strategy) == [{3}]


class LateGrid(LocalGrid):
    """One node's replies come when they were asked for again."""

    late = 1

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        first = set(message_ids) - self.asked
        self.asked |= first
        late = {i for i in first if self.node_of[i] == self.late}
        return super().pull_messages([i for i in message_ids if i not in late])

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        listed = list(messages)
        ids = super().push_messages(listed)
        self.asked: set[str] = set()
        nodes = (message.metadata.dst_node_id for message in listed)
        self.node_of = dict(zip(ids, nodes, strict=True))
        return ids


@pytest.mark.parametrize("attack", ["garbage", "too long"])
def test_a_useless_reply_does_not_take_the_place_of_a_slow_one(attack) -> None:
    """Five of six are enough; with a useless one among the first five, all are."""

    def tamper(reply: Message, node: int) -> Message:
        if attack == "garbage" and node == VICTIM and "arrays" in reply.content:
            put_frame(reply, b"garbage")
        return reply

    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        if attack == "too long" and node == VICTIM and server_round > 1:
            out["weight"] = np.full_like(out["weight"], 1e6)
        return out

    strategy = TopK(FedAvg(fraction_evaluate=0.0), quorum=5 / 6)
    random.seed(0)
    grid = LateGrid(numpy_app(mods=[compression_mod], step=step), NODES, tamper=tamper)
    strategy.start(grid, initial_model(), num_rounds=3)
    assert refused(strategy)[1:] == [{VICTIM}] * 2


def test_lengths_do_not_overflow() -> None:
    assert length({"w": np.full(4, 3e38, np.float32)}) == pytest.approx(6e38)
    assert length({"w": np.full(4, 1e300)}) == pytest.approx(2e300)
    assert length({"w": np.zeros(3, np.float32), "n": np.array(7)}) == 0
    assert length({"w": np.array([3.0, np.inf], np.float32)}) == math.inf


def test_a_device_refused_again_and_again_is_left_out_for_a_while() -> None:
    def garbage(reply: Message) -> None:
        reply.content["arrays"] = frame_to_record(b"nonsense")

    strategy = TopK(
        FedAvg(fraction_evaluate=0.0), guards=Guard(max_refusals=2, rounds_out=3)
    )
    run(strategy, tamper=on_victim(garbage), rounds=8)
    asked = [VICTIM in {d.node_id for d in r.devices} for r in strategy.history]
    assert asked == [True, True, False, False, False, True, True, False]


def test_time_out_doubles_and_ends_with_a_good_reply() -> None:
    bench = Bench(Guard(max_refusals=1, rounds_out=2))
    assert bench.note(7, 1, refused=True)
    assert [bench.is_out(7, n) for n in (2, 3, 4)] == [True, True, False]
    assert bench.note(7, 4, refused=True)
    assert [bench.is_out(7, n) for n in (5, 8, 9)] == [True, True, False]
    assert not bench.note(7, 9, refused=False)
    assert bench.note(7, 10, refused=True)
    assert not bench.is_out(7, 13)
    assert not bench.is_out(8, 1)


def test_nobody_left_means_everybody_is_asked() -> None:
    def garbage(reply: Message, node: int) -> Message:
        if "arrays" in reply.content:
            reply.content["arrays"] = frame_to_record(b"nonsense")
        return reply

    strategy = TopK(FedAvg(fraction_evaluate=0.0), max_failed_rounds=0)
    run(strategy, tamper=garbage, rounds=5)
    assert [len(r.devices) for r in strategy.history] == [NODES] * 5


# --- what a device says --------------------------------------------------------------


def claiming(**values: Any) -> Tamper:
    def claim(reply: Message) -> None:
        say(reply, **values)

    return on_victim(claim)


@pytest.mark.parametrize("count", [4097, 65536])
def test_too_many_labels_cost_their_device_only(count) -> None:
    strategy = Caesar(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=claiming(labels=[1] * count), rounds=2)
    assert refused(strategy) == [{VICTIM}] * 2


def test_the_most_labels_are_taken_in() -> None:
    strategy = Caesar(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=claiming(labels=[1] * 4096), rounds=2)
    assert refused(strategy) == [set()] * 2


@pytest.mark.parametrize(
    "values",
    [
        {"part": {"x": "y" * 5000}},
        {"part": "[" * 3000},
        {"part": {"x": "y" * 1_000_000}},
        {"labels": "many"},
        {"labels": [True, False]},
        {"labels": [1.5]},
        {"labels": [-1]},
        {"seconds": 1e300},
        {"header": "x" * 100_000},
    ],
    ids=lambda v: f"{next(iter(v))} {next(iter(v.values()))!s:.12}",
)
def test_reports_out_of_bounds_cost_their_device_only(values) -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=claiming(**values), rounds=1)
    assert refused(strategy) == [{VICTIM}]


def test_a_report_at_its_bounds_is_read() -> None:
    part = {"x": "y" * 4000}
    report = DeviceReport(1e7, 0.0, 0.0, 0.0, labels=(1,) * 4096, part=part)

    header = UploadHeader(1, bytes(16), "evaluated")
    content = with_note(RecordDict(), report.note(header))
    read, back = DeviceReport.read(content)
    assert (back, read.labels, read.part) == (header, report.labels, part)
    assert read.train == pytest.approx(1e7, rel=0.005)


def test_reasons_are_short_lines() -> None:
    def shout(reply: Message) -> None:
        weight = "x\nINFO : train: used 6 of 6\x1b[2J" + "x" * 1_000_000
        reply.content["metrics"] = MetricRecord({"num-examples": 1.0, weight: 1.0})
        reply.content["arrays"] = ArrayRecord({weight: Array(np.zeros(1))})

    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=on_victim(shout), rounds=1)
    (reason,) = strategy.history[0].dropped.values()
    assert len(reason) < 600
    assert reason.isprintable()
    assert as_reason("a\nb") == "a\\nb"
    assert len(as_reason("ü" * 10_000)) == 500


def test_a_reply_far_larger_than_the_model_is_not_decoded() -> None:
    def stuff(reply: Message) -> None:
        put_frame(reply, b"CSAR" + bytes(1 << 20))

    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=on_victim(stuff), rounds=1)
    assert "the most of this model" in strategy.history[0].dropped[VICTIM]

    def flood(reply: Message) -> None:
        reply.content["more"] = frame_to_record(bytes(20 << 20))

    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    run(strategy, tamper=on_victim(flood), rounds=1)
    assert "expected of this model" in strategy.history[0].dropped[VICTIM]


def test_one_device_does_not_reset_all_control_variates_for_ever() -> None:
    tamper = claiming(part=json.dumps({"epoch": 5, "settled": 99}))
    strategy = FedComLoc(FedAvg(fraction_evaluate=0.0), lr=0.1)
    run(strategy, tamper=tamper, rounds=12)
    assert strategy.resets <= 4
    assert refused(strategy)[-1] <= {VICTIM}


# --- pure parts -----------------------------------------------------------------------


def test_limits_do_not_touch_ordinary_weights() -> None:
    guard = Guard()
    weights = {1: 30.0, 2: 10.0, 3: 10.0}
    assert guard.limited_weights(weights) == weights
    assert guard.limited_weights({1: 1e9, 2: 1.0}) == {1: 1e9, 2: 1.0}
    assert guard.limited_weights({1: 97.0, 2: 2.0, 3: 1.0})[1] == pytest.approx(9)
    assert guard.limited_weights({1: 1.0, 2: 0.0, 3: 0.0})[1] == 1.0


@pytest.mark.parametrize("nodes", [2, 4, 6, 50])
def test_half_of_the_devices_do_not_make_the_median(nodes: int) -> None:
    """However long theirs are; nor do halves whose data differ lose each other."""
    guard, usual = Guard(), (1.0,) * 64
    halves = {n: 1.0 if n % 2 else 1e6 for n in range(nodes)}
    long = {n for n in halves if n % 2 == 0}
    assert set(guard.too_long(halves, usual)) == long
    assert set(guard.too_long(halves, (1.0, 1e6))) == long
    if nodes > 2:  # in the first round, too
        assert set(guard.too_long(halves, ())) == long
    assert guard.longest((1.0, 1.0, 1e6, 1e6)) == 1e4
    unlike = {n: 1.0 if n % 2 else 90.0 for n in range(nodes)}
    assert not guard.too_long(unlike, tuple(unlike.values()))


def test_lengths_are_compared_with_the_median_of_those_that_moved() -> None:
    guard = Guard(max_norm=10)
    assert guard.too_long({1: 1e9, 2: 1.0}, ()) == {}
    assert guard.too_long({1: 1e9, 2: 1.0, 3: 1.0}, ()) == {1: 1e9}
    assert guard.too_long({1: 11.0}, (1.0, 1.0, 1.0)) == {1: 11.0}
    assert guard.too_long({1: 5.0, 2: 0.0, 3: 0.0, 4: 5.0, 5: 6.0}, ()) == {}
    assert set(guard.too_long({1: math.inf, 2: 1.0, 3: 1.0}, ())) == {1}
    # All of a round may be longer than all before: then it is the round's own median.
    later = dict.fromkeys(range(1, 5), 50.0)
    assert guard.too_long(later, (1.0,) * 50) == {}
    assert guard.too_long({**later, 9: 501.0}, (1.0,) * 50) == {9: 501 / 50}


@pytest.mark.parametrize(
    "bad", [{"max_share": 0}, {"max_norm": 1}, {"max_refusals": -1}, {"rounds_out": 0}]
)
def test_guards_out_of_range_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Guard(**bad)


def test_a_weight_must_be_there_where_flower_wants_one() -> None:
    from flwr.app import RecordDict

    empty = RecordDict()
    assert read_weight(empty, "n", required=False) == 0
    with pytest.raises(CodecError, match="0 MetricRecords"):
        read_weight(empty, "n")


class InPlace(FedAvg):
    def __init__(self) -> None:
        super().__init__()
        self.moments = {"w": np.ones(3)}
        self.rounds = [1]


@pytest.mark.parametrize("make", [InPlace, FedAdam])
def test_a_strategy_is_put_back_as_it_was(make) -> None:
    inner: Strategy = make()
    put_back = snapshot(inner)
    before = dict(vars(inner))
    if isinstance(inner, InPlace):
        inner.moments["w"] *= 7
        inner.rounds.append(2)
    else:
        inner.m_t = {"w": np.zeros(2)}
    inner.fresh = 1
    put_back()
    assert vars(inner).keys() == before.keys()
    if isinstance(inner, InPlace):
        np.testing.assert_array_equal(inner.moments["w"], 1)
        assert inner.rounds == [1]
    else:
        assert inner.m_t is None
