"""FedComLoc through Flower: the sum of all control variates is zero, whatever fails."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian

from flwr_caesar.clients import compression_mod
from flwr_caesar.clients.method import extras
from flwr_caesar.codec import get_codec
from flwr_caesar.codec.contract import registry
from flwr_caesar.strategies import FedComLoc
from flwr_caesar.strategies.compressed_downlink import CompressedDownlink
from flwr_caesar.strategies.fedcomloc_codec import model_codec
from flwr_caesar.strategies.fedcomloc_facts import ControlFacts
from flwr_caesar.strategies.phase import Device, Phase, Reply
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.transport import (
    TRAIN,
    DeviceReport,
    record_to_frame,
    without_note,
)

from .local_grid import LocalGrid

LR = 0.05
SHAPES = {"weight": (48, 40), "bias": (40,)}


def start_model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def target(node: int) -> dict[str, np.ndarray]:
    """Minimiser of a device's loss ``curvature |x - target|^2 / 2``."""
    rng = np.random.default_rng(node)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def curvature(node: int) -> np.float32:
    return np.float32(0.5 + node)


def optimum(nodes: int) -> dict[str, np.ndarray]:
    """Minimiser of the sum of the devices' losses."""
    weights = [float(curvature(node + 1)) for node in range(nodes)]
    goals = [target(node + 1) for node in range(nodes)]
    return {
        name: np.average([goal[name] for goal in goals], axis=0, weights=weights)
        for name in SHAPES
    }


def quadratic_app(*, mod: bool = True) -> ClientApp:
    """Take the steps that are asked for, with the control variates that are given."""
    app = ClientApp(mods=[compression_mod] if mod else [])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        config = msg.content.config_records["config"]
        control = msg.content.array_records.get("control", {})
        goal = target(context.node_id)
        out = {}
        for name, array in msg.content.array_records["arrays"].items():
            x = array.numpy().copy()
            h = control[name].numpy() if name in control else np.float32(0)
            for _ in range(int(config.get("local-steps", 1))):
                gradient = curvature(context.node_id) * (x - goal[name])
                x -= np.float32(LR) * (gradient - h)
            out[name] = Array(x)
        metrics = MetricRecord({"num-examples": 1, "loss": 1.0})
        content = RecordDict({"arrays": ArrayRecord(out), "metrics": metrics})
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def control_of(context: Context, strategy: FedComLoc) -> dict[str, np.ndarray]:
    """Return what a device would train with if it were asked now."""
    assert strategy._exchange.session is not None
    state = ContextStore(context.state).load(strategy._exchange.session.head.lineage)
    if state is None or "control-counts" not in state.extras:
        return {}
    if int(state.extras["control-counts"][0]) != strategy.method.epoch:
        return {}
    return extras(state, "control/")


class Watched(FedComLoc):
    """Checks the law at the end of every round."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nonzero = 0

    def aggregate_train(self, server_round, replies):
        result = super().aggregate_train(server_round, replies)
        self.check()
        return result

    def aggregate_evaluate(self, server_round, replies):
        result = super().aggregate_evaluate(server_round, replies)
        self.check()
        return result

    def check(self) -> None:
        assert self._grid is not None
        contexts = self._grid._grid.contexts.values()
        held = [control_of(context, self) for context in contexts]
        for name in SHAPES:
            parts = [control[name] for control in held if name in control]
            if not parts:
                continue
            largest = max(float(np.abs(part).max()) for part in parts)
            self.nonzero += largest > 1e-3
            total = np.sum(parts, axis=0, dtype=np.float64)
            np.testing.assert_allclose(total, 0, atol=2e-5 * max(largest, 1.0))


def run(
    nodes: int = 6,
    rounds: int = 8,
    inner: Callable[..., Any] = FedAvg,
    tamper: Callable[[LocalGrid, Message, int], Message | None] | None = None,
    seed: int = 0,
    fraction: float = 1.0,
    evaluate: float = 0.0,
    **settings: Any,
) -> tuple[Watched, LocalGrid, Any]:
    random.seed(seed)
    grid = LocalGrid(quadratic_app(), nodes)
    if "codec" not in settings:
        settings = {"density": 1.0, **settings}
    if tamper:
        grid.tamper = lambda reply, node: tamper(grid, reply, node)
    strategy = Watched(
        inner(fraction_train=fraction, fraction_evaluate=evaluate, min_train_nodes=1),
        lr=LR,
        **{"p": 0.25, "exact_below": 1024, **settings},
    )
    result = strategy.start(grid, start_model(), num_rounds=rounds, timeout=0.01)
    return strategy, grid, result


COMPRESSION = [{"density": 0.3}, {"bits": 4}, {"density": 0.3, "bits": 6}]


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        *COMPRESSION,
        {"variant": "global", "codec": {"id": "rotated", "bits": 2}},
        {"variant": "local", "density": 0.3},
        *({"variant": "global", **settings} for settings in COMPRESSION),
        {"variant": "global", "density": 0.3, "feedback": 0.5},
    ],
    ids=str,
)
def test_the_sum_is_zero_after_every_round(fraction, settings) -> None:
    strategy, _, _ = run(rounds=5, fraction=fraction, evaluate=0.5, **settings)
    assert strategy.resets == 0
    assert strategy.nonzero > 5
    assert not any(record.dropped for record in strategy.history)
    phases = [record.phase for record in strategy.history]
    assert phases == ["train", "settle", "evaluate"] * 5


@pytest.mark.parametrize("codec", sorted(registry._OURS))
def test_any_codec_can_be_the_compressor(codec: str) -> None:
    strategy, _, _ = run(4, 4, fraction=0.5, codec=codec)
    assert strategy.resets == 0
    assert strategy.nonzero > 1
    assert not any(record.dropped for record in strategy.history)
    whole, _, _ = run(4, 1, fraction=0.5)
    if codec not in ("dense", "cast"):
        assert strategy.history[0].bytes_up < 0.8 * whole.history[0].bytes_up


@pytest.mark.parametrize("variant", ["com", "global"])
def test_the_mean_counts_and_not_what_an_optimiser_makes_of_it(variant) -> None:
    strategy, grid, _ = run(4, 4, FedAdam, variant=variant, density=0.3)
    assert strategy.resets == 0
    assert strategy.nonzero >= 4
    moved = [c for kind, c in grid.sent if "mean" in c]
    assert len(moved) == 4 * 4


def test_an_average_is_not_sent_twice() -> None:
    _, grid, _ = run(3, 2)
    assert not any("mean" in content for _, content in grid.sent)


# --- what goes wrong -------------------------------------------------------------


def is_move(reply: Message) -> bool:
    return reply.has_content() and not reply.content.metric_records


class Faults:
    """Loses messages and states, each with a probability of its own."""

    def __init__(self, seed: int, **chances: float) -> None:
        self.rng = random.Random(seed)
        self.chances = chances
        self.before: dict[int, RecordDict] = {}
        self.backups: dict[int, RecordDict] = {}
        self.happened: set[str] = set()

    def __call__(self, grid: LocalGrid, reply: Message, node: int) -> Message | None:
        state = grid.contexts[node].state
        answer: Message | None = reply
        if is_move(reply):
            if self._strikes("unasked"):
                self._become(grid, node, self.before.get(node))
                answer = None
            elif self._strikes("unmoved"):
                answer = None
        elif self._strikes("unanswered"):
            answer = None
        if not is_move(reply) and self._strikes("wiped"):
            self._become(grid, node, None)
        if not is_move(reply) and self._strikes("rolled_back"):
            self._become(grid, node, self.backups.get(node))
        if self._strikes("copied"):
            self.backups[node] = RecordDict(dict(state.items()))
        now = grid.contexts[node].state
        self.before[node] = RecordDict(dict(now.items()))
        return answer

    def _strikes(self, fault: str) -> bool:
        struck = self.rng.random() < self.chances.get(fault, 0.0)
        if struck:
            self.happened.add(fault)
        return struck

    def _become(self, grid: LocalGrid, node: int, state: RecordDict | None) -> None:
        kept = dict(state.items()) if state else {}
        for key in list(grid.contexts[node].state):
            del grid.contexts[node].state[key]
        for key, record in kept.items():
            grid.contexts[node].state[key] = record


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize(
    "chances",
    [
        {"unanswered": 0.2},
        {"unasked": 0.1},
        {"unmoved": 0.1},
        {"unanswered": 0.1, "unasked": 0.1, "unmoved": 0.1},
    ],
    ids=str,
)
def test_lost_messages_leave_the_sum_at_zero(chances, fraction) -> None:
    faults = Faults(1, **chances)
    strategy, _, _ = run(rounds=12, tamper=faults, fraction=fraction, density=0.3)
    assert faults.happened == set(chances)
    assert strategy.nonzero > 4


def test_a_move_that_is_lost_once_is_made_up_for() -> None:
    lost: list[int] = []

    def first_of_all(grid: LocalGrid, reply: Message, node: int) -> Message | None:
        if is_move(reply) and not lost:
            lost.append(node)
            return None
        return reply

    strategy, _, _ = run(3, 3, tamper=first_of_all)
    assert strategy.resets == 0
    moves = [r for r in strategy.history if r.phase == "settle"]
    assert [len(record.devices) for record in moves] == [3, 1, 3, 3]


def test_who_never_moves_makes_all_start_again() -> None:
    def deaf(grid: LocalGrid, reply: Message, node: int) -> Message | None:
        return None if is_move(reply) and node == 2 else reply

    strategy, _, _ = run(3, 3, tamper=deaf)
    assert strategy.resets == 3
    assert strategy.nonzero == 0


@pytest.mark.parametrize(
    "chances",
    [
        {"wiped": 0.05},
        {"rolled_back": 0.1, "copied": 0.3},
        {"wiped": 0.03, "rolled_back": 0.05, "copied": 0.3, "unmoved": 0.05},
    ],
    ids=str,
)
def test_lost_states_leave_the_sum_at_zero(chances) -> None:
    faults = Faults(2, **chances)
    strategy, _, _ = run(rounds=20, tamper=faults, density=0.3)
    assert faults.happened == set(chances)
    assert strategy.resets > 0
    assert strategy.nonzero > 4


def test_a_state_lost_between_two_rounds_is_found_when_the_device_is_asked() -> None:
    random.seed(0)
    grid = LocalGrid(quadratic_app(), 6)
    strategy = FedComLoc(FedAvg(fraction_evaluate=0.0), lr=LR)
    epochs = []

    def wipe(record: Any) -> None:
        epochs.append(strategy.method.epoch)
        if record.server_round == 3 and record.phase == "settle":
            for key in list(grid.contexts[4].state):
                del grid.contexts[4].state[key]

    strategy._recorder._sinks = (wipe,)
    strategy.start(grid, start_model(), num_rounds=5, timeout=0.01)
    assert strategy.resets == 1
    assert len(set(epochs[:6])) == 1
    assert len(set(epochs[6:])) == 1
    held = [control_of(context, strategy) for context in grid.contexts.values()]
    assert len(held) == 6
    total = sum(control["weight"].astype(np.float64) for control in held)
    np.testing.assert_allclose(total, 0, atol=1e-4)


# --- restarts --------------------------------------------------------------------


@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
@pytest.mark.parametrize(
    "settings",
    [
        {"density": 0.3},
        {"variant": "global", "density": 0.3},
        {"variant": "global", "bits": 4},
    ],
    ids=str,
)
def test_a_resumed_run_is_the_uninterrupted_one(inner, settings, tmp_path) -> None:
    def go(folder: Path, *stops: int) -> tuple[Any, Watched]:
        grid = LocalGrid(quadratic_app(), 4)
        for stop in stops:
            strategy = Watched(inner(), lr=LR, checkpoint=folder, **settings)
            result = strategy.start(grid, start_model(), num_rounds=stop)
            assert strategy.resets == 0
        return result, strategy

    whole, first = go(tmp_path / "whole", 6)
    parts, last = go(tmp_path / "parts", 2, 3, 6)
    for name in SHAPES:
        np.testing.assert_array_equal(
            whole.arrays[name].numpy(), parts.arrays[name].numpy(), err_msg=name
        )
    down = [record.bytes_down for record in last.history]
    # Random names of histories, epochs and uploads are shortened to other lengths.
    alike = [record.bytes_down for record in first.history[-len(down) :]]
    np.testing.assert_allclose(down, alike, rtol=0, atol=64)
    assert last.nonzero


def test_who_broke_the_sum_is_noted_before_the_reset_is() -> None:
    """A server that dies in between, with the checkpoint of before, resets as well."""
    method = FedComLoc(FedAvg(), lr=LR).method
    saved = method.state()
    facts = ControlFacts(method.epoch, moves=2).pack()
    row = DeviceRow(f"{1:032x}", facts=facts)
    header = DownloadHeader(7, (1, 1), 11, (0, bytes(8)))
    phase = Phase(TRAIN, 3)
    report = DeviceReport(part={"epoch": method.epoch, "settled": 1})
    phase.replies[1] = Reply(1, None, RecordDict(), report=report)
    outcome = method.after(phase, [Device(1, header, row)])
    assert method.resets == 1
    again = FedComLoc(FedAvg(), lr=LR).method
    again.restore(saved, {row.device: outcome.facts[1]})
    assert again.resets == 1
    assert again.epoch != saved.tree["epoch"]


class Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("moved", range(4))
def test_a_server_killed_while_variates_move(moved: int, tmp_path: Path) -> None:
    grid = LocalGrid(quadratic_app(), 4)
    seen = 0

    def kill(reply: Message, node: int) -> Message:
        nonlocal seen
        if is_move(reply):
            seen += 1
            if seen == 4 + moved + 1:  # in the second round
                raise Killed
        return reply

    grid.tamper = kill
    with pytest.raises(Killed):
        Watched(FedAvg(), lr=LR, checkpoint=tmp_path).start(
            grid, start_model(), num_rounds=6
        )
    grid.tamper = None
    strategy = Watched(FedAvg(), lr=LR, checkpoint=tmp_path)
    strategy.start(grid, start_model(), num_rounds=6)
    assert strategy.resets == 1
    assert strategy.nonzero > 2


def test_a_server_from_an_older_backup(tmp_path: Path) -> None:
    grid = LocalGrid(quadratic_app(), 4)
    kept, old = tmp_path / "kept", tmp_path / "old"
    Watched(FedAvg(), lr=LR, checkpoint=kept).start(grid, start_model(), num_rounds=2)
    shutil.copytree(kept, old)
    Watched(FedAvg(), lr=LR, checkpoint=kept).start(grid, start_model(), num_rounds=4)
    strategy = Watched(FedAvg(), lr=LR, checkpoint=old)
    strategy.start(grid, start_model(), num_rounds=6)
    assert strategy.resets == 1
    assert strategy.nonzero > 2


# --- what it computes ------------------------------------------------------------


def test_one_step_without_control_variates_is_federated_averaging() -> None:
    _, _, result = run(rounds=4, p=1.0, control=False)
    plain = FedAvg(fraction_evaluate=0.0)
    grid = LocalGrid(quadratic_app(mod=False), 6)
    expected = plain.start(grid, start_model(), num_rounds=4)
    for name in SHAPES:
        # The same sum in another order: equal to float32 rounding.
        np.testing.assert_allclose(
            result.arrays[name].numpy(), expected.arrays[name].numpy(), atol=2e-6
        )


def test_one_step_with_control_variates_is_federated_averaging_too() -> None:
    _, _, result = run(rounds=4, p=1.0)
    _, _, expected = run(rounds=4, p=1.0, control=False)
    for name in SHAPES:
        np.testing.assert_allclose(
            result.arrays[name].numpy(), expected.arrays[name].numpy(), atol=2e-5
        )


def distance(result: Any, nodes: int) -> float:
    goal = optimum(nodes)
    return max(
        float(np.abs(result.arrays[name].numpy() - goal[name]).max()) for name in SHAPES
    )


@pytest.mark.parametrize("steps", ["geometric", "fixed"])
def test_control_variates_find_the_optimum_that_averaging_misses(steps) -> None:
    settings = {"nodes": 3, "rounds": 40, "p": 0.2, "steps": steps}
    _, _, with_control = run(**settings)
    _, _, without = run(**settings, control=False)
    assert distance(with_control, 3) < 1e-3
    assert distance(without, 3) > 0.1


def test_all_devices_of_a_round_take_the_steps_that_were_drawn() -> None:
    strategy, grid, _ = run(4, 8, fraction=0.5)
    asked = [
        content.config_records["config"]
        for _, content in grid.sent
        if "local-steps" in content.config_records["config"]
    ]
    drawn = {c["server-round"]: c["local-steps"] for c in asked}
    assert all(drawn[c["server-round"]] == c["local-steps"] for c in asked)
    assert drawn == {r: strategy.local_steps(r) for r in range(1, 9)}
    other = FedComLoc(FedAvg(), lr=LR, p=0.25, seed=1)
    many = [other.local_steps(r) for r in range(1, 2001)]
    assert abs(np.mean(many) - 4) < 0.3
    assert min(many) == 1
    assert FedComLoc(FedAvg(), lr=LR, p=0.3, steps="fixed").local_steps(5) == 3


@pytest.mark.parametrize("settings", COMPRESSION[1:], ids=str)
def test_global_publishes_what_it_compressed_and_owes_the_rest(settings) -> None:
    strategy, grid, result = run(3, 3, variant="global", **settings)
    published = result.arrays["weight"].numpy()
    kept = np.count_nonzero(published)
    if "density" in settings:
        assert kept <= np.ceil(settings["density"] * published.size)
    for context in grid.contexts.values():
        state = ContextStore(context.state).load(
            strategy._exchange.session.head.lineage
        )
        np.testing.assert_array_equal(state.model["weight"], published)
    error = strategy.method.compressed.error["weight"]
    assert np.abs(error).max() > 0
    dense, _, _ = run(3, 1)
    train = [r for r in strategy.history if r.phase == "train"]
    # But for the notes, which are as long as their ids deflate.
    assert train[0].bytes_down == pytest.approx(dense.history[0].bytes_down, abs=60)
    assert strategy.history[1].bytes_down < 1.5 * dense.history[1].bytes_down


def test_global_as_published_moves_by_the_model_that_it_sends() -> None:
    settings = {"variant": "global", "density": 0.3, "values": "float32"}
    random.seed(0)
    grid = LocalGrid(quadratic_app(), 3)
    strategy = FedComLoc(FedAvg(), lr=LR, p=0.25, exact_below=1, feedback=0, **settings)
    result = strategy.start(grid, start_model(), num_rounds=1, timeout=0.01)
    assert not any("mean" in content for _, content in grid.sent)
    assert not strategy.method.compressed.error
    steps = strategy.local_steps(1)
    first = {name: array.numpy() for name, array in start_model().items()}
    for name in SHAPES:
        ends = []
        for node in (1, 2, 3):
            x = first[name].astype(np.float64)
            for _ in range(steps):
                x -= LR * curvature(node) * (x - target(node)[name])
            ends.append(x)
        mean = np.mean(ends, axis=0)
        sparse = mean.reshape(-1).copy()
        sparse[np.argsort(-np.abs(sparse))[int(np.ceil(0.3 * sparse.size)) :]] = 0
        sparse = sparse.reshape(mean.shape)
        np.testing.assert_allclose(result.arrays[name].numpy(), sparse, atol=1e-5)
        for node, end in zip((1, 2, 3), ends, strict=True):
            found = control_of(grid.contexts[node], strategy)[name]
            np.testing.assert_allclose(found, 0.25 / LR * (sparse - end), atol=1e-4)


def test_global_as_published_takes_the_compressed_mean_beside_another_model() -> None:
    strategy, grid, _ = run_unwatched(FedAdam, feedback=0.0)
    means = [content["mean"] for _, content in grid.sent if "mean" in content]
    assert len(means) == 2 * 3
    codec = strategy.method.compressed.codec
    decoded, _ = codec.decode(record_to_frame(means[0]))
    weight = decoded["weight"]
    assert np.count_nonzero(weight) <= np.ceil(0.3 * weight.size)


def run_unwatched(inner: Callable[..., Any], **settings: Any):
    grid = LocalGrid(quadratic_app(), 3)
    strategy = FedComLoc(
        inner(fraction_evaluate=0.0),
        lr=LR,
        p=0.25,
        exact_below=1024,
        variant="global",
        density=0.3,
        **settings,
    )
    result = strategy.start(grid, start_model(), num_rounds=2, timeout=0.01)
    return strategy, grid, result


def test_half_of_what_was_left_out_returns() -> None:
    """``y = mean + e / 2`` in the second round, whatever the mean of it is."""
    downlink = CompressedDownlink(
        model_codec(density=0.3, bits=32, values="float32", exact_below=1),
        feedback=0.5,
    )
    rng = np.random.default_rng(0)
    first, second = ({"w": rng.normal(size=1000).astype(np.float32)} for _ in range(2))
    left = first["w"] - downlink.compress(first)["w"]
    meant = second["w"] + left * np.float32(0.5)
    sent = downlink.compress(second)["w"]
    kept = sent != 0
    np.testing.assert_array_equal(sent[kept], meant[kept])
    np.testing.assert_array_equal(downlink.error["w"], np.where(kept, 0, meant))


@pytest.mark.parametrize("settings", [{"feedback": -0.1}, {"feedback": 1.5}])
def test_feedback_is_a_fraction(settings) -> None:
    with pytest.raises(ValueError, match="feedback must be in"):
        FedComLoc(FedAvg(), lr=LR, variant="global", **settings)
    with pytest.raises(ValueError, match="no effect with variant com"):
        FedComLoc(FedAvg(), lr=LR, feedback=0.5)


def test_a_message_smaller_by_what_is_left_out() -> None:
    whole, _, _ = run(2, 1)
    sparse, _, _ = run(2, 1, density=0.3)
    both, _, _ = run(2, 1, density=0.3, bits=4)
    small, _, _ = run(2, 1, density=0.3, exact_below=4096)
    assert small.history[0].bytes_up > 0.9 * whole.history[0].bytes_up
    up = [strategy.history[0].bytes_up for strategy in (whole, sparse, both)]
    assert up[1] < 0.3 * up[0]
    assert up[2] < 0.65 * up[1]


@pytest.mark.parametrize(
    ("density", "bits", "values"),
    [
        (0.3, 32, "float32"),
        (1.0, 4, "float16"),
        (0.3, 8, "float16"),
        (1.0, 32, "float16"),
    ],
)
def test_the_codec_is_the_papers_compressor(density, bits, values) -> None:
    x = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    codec = model_codec(density=density, bits=bits, bucket=0, values=values)
    got = codec.decode(codec.encode({"x": x})[0])[0]["x"]
    kept = x.copy()
    kept[np.argsort(-np.abs(x))[round(density * x.size) :]] = 0
    if bits == 32:
        np.testing.assert_array_equal(got, kept)
        return
    norm = np.linalg.norm(kept.astype(np.float64))
    level = got / norm * 2**bits
    np.testing.assert_allclose(level, np.rint(level), atol=1e-3)
    assert np.abs(got - kept).max() <= norm / 2**bits * 1.001
    assert not got[kept == 0].any()


@pytest.mark.parametrize("bits", [3, 4, 5, 8, 16])
def test_few_bits_change_a_model_little(bits) -> None:
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    codec = model_codec(density=1.0, bits=bits)
    got = codec.decode(codec.encode({"x": x})[0])[0]["x"]
    assert np.square(got - x).sum() < 0.05 * np.square(x).sum()


def test_settings_reach_the_app_and_no_more_than_these() -> None:
    _, grid, _ = run(2, 1, variant="local", density=0.3, p=1.0)
    (config,) = {
        tuple(sorted(without_note(content).config_records["config"].items()))
        for _, content in grid.sent[:2]
    }
    compress = dict(config)["compress"]
    assert (
        get_codec(json.loads(compress)).config
        == model_codec(density=0.3, bits=32).config
    )
    assert set(dict(config)) == {"server-round", "local-steps", "lr", "compress"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "both"}, "variant"),
        ({"steps": "some"}, "steps"),
        ({"density": 0}, "density"),
        ({"bits": 17}, "bits"),
        ({"bits": 2.5}, "bits"),
        ({"p": 0}, "p must"),
        ({"lr": 0}, "lr"),
        ({"seed": -1}, "seed"),
        ({"values": "float8"}, "values"),
        ({"exact_below": -1}, "exact_below"),
        ({"codec": "nope"}, "codec: no codec 'nope'"),
        ({"codec": {"id": "rotated", "bits": 5}}, "codec: rotated: bits"),
        ({"codec": "rotated", "density": 0.1}, "density has no effect with codec"),
        ({"codec": "rotated", "variant": "local"}, "codec must be one of topk, qsgd"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FedComLoc(FedAvg(), **{"lr": LR, **settings})


def test_an_inner_strategy_without_a_mean_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FedMedian.*control"):
        FedComLoc(FedMedian(), lr=LR)
    FedComLoc(FedMedian(), lr=LR, control=False)
