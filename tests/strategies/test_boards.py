"""Real rounds on made-up boards: what they measure, and what they are asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.deploy.device_watch import DeviceWatch
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.records import DeviceRecord, RoundRecord
from flwr_caesar.strategies import Caesar, CompressedStrategy, TopK
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.telemetry import NODE_VARIABLE
from flwr_caesar.transport import DeviceReport, Plan

from ..deploy import boards
from ..sync.faults import image, logged
from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid
from .replies import claim, put_note
from .test_repeated_requests import Twice


@dataclass
class Bench:
    """Boards of nodes 1, 2 and 3, and what their apps were asked for."""

    folder: Path
    asked: list[dict[str, Any]] = field(default_factory=list)
    heat_of: dict[tuple[int, int], int] = field(default_factory=dict)
    _at: int = 0

    def root(self, node: int) -> Path:
        return self.folder / f"root-{node}"

    def heat(self, node: int, degrees: int) -> None:
        boards.zone(self.root(node), 0, "cpu-thermal", f"{degrees}000")

    def power(self, node: int, mode: int) -> None:
        boards.put(self.root(node), "var/lib/nvpmodel/status", f"pmode:000{mode}\n")

    def choose(self, msg: Message, context: Context, call_next: Any) -> Message:
        """Be the node that a message is for."""
        self._at = context.node_id
        if self.heat_of:
            server_round = int(msg.content["config"]["server-round"])
            self.heat(self._at, self.heat_of.get((self._at, server_round), 40))
        return call_next(msg, context)

    def note(self, msg: Message, context: Context, call_next: Any) -> Message:
        """Note what the app is asked for."""
        config = msg.content.config_records.get("config")
        self.asked.append({**(config or {}), "node": context.node_id})
        return call_next(msg, context)

    def start(self) -> DeviceWatch:
        return DeviceWatch(
            NodeFile.load(self.folder / "node.toml"), self.root(self._at)
        )

    def grid(self) -> LocalGrid:
        mods = [self.choose, compression_mod, self.note]
        return LocalGrid(numpy_app(mods=mods), 3)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "state").mkdir()
    NodeFile(
        address="fleet.example:8443",
        ca=tmp_path / "ca.crt",
        name="jetson-07",
        key=tmp_path / "device.key",
        partition_id=0,
        num_partitions=1,
        state_dir=tmp_path / "state",
    ).save(tmp_path / "node.toml")
    bench = Bench(tmp_path)
    boards.orin(bench.root(1))
    boards.xavier(bench.root(2))
    boards.x86(bench.root(3))
    monkeypatch.setenv(NODE_VARIABLE, str(tmp_path / "node.toml"))
    monkeypatch.setattr(DeviceWatch, "start", bench.start)
    return bench


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    with logged() as records:
        yield records


def devices(record: RoundRecord) -> dict[int, DeviceRecord]:
    return {device.node_id: device for device in record.devices}


def run(
    strategy: CompressedStrategy, grid: LocalGrid, rounds: int = 1, **config: int
) -> list[RoundRecord]:
    train = ConfigRecord(dict(config))
    strategy.start(grid, initial_model(), num_rounds=rounds, train_config=train)
    return strategy.history


def test_what_each_board_measured_is_in_the_devices_columns(bench: Bench) -> None:
    trained, tested = run(TopK(FedAvg()), bench.grid())
    for record in (trained, tested):
        rows = {node: device.to_row() for node, device in devices(record).items()}
        assert rows[1]["watts_mean"] == pytest.approx(6.8544)
        assert rows[1]["power_mode"] == "15W"
        assert rows[1]["celsius_max"] == 52.687
        assert rows[2]["watts_max"] == pytest.approx(19.0 * 0.267)
        assert rows[3]["watts_mean"] is None
        assert {row["sensors"] for row in rows.values()} == {"sysfs"}
        assert all(
            row["seconds_measured"] > row["seconds_train"] for row in rows.values()
        )
        assert not any(row["policy"] or row["dropped"] for row in rows.values())
    metrics = (bench.folder / "state" / "flwr_caesar.prom").read_text()
    assert 'flwr_caesar_round_seconds{device="jetson-07"}' in metrics


def test_without_a_node_file_not_a_byte_more_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NODE_VARIABLE)
    monkeypatch.setattr(DeviceWatch, "start", None)
    grid = bench.grid()
    (record, _) = run(TopK(FedAvg()), grid)
    assert not any(DeviceReport.read(c)[0].telemetry for _, c in grid.received)
    assert devices(record)[1].to_row()["seconds_measured"] == 0


def test_a_hot_device_declines_and_is_not_blamed(bench: Bench) -> None:
    """As often as it likes: it is asked each round, and the run does not fail."""
    bench.heat(2, 92)
    grid = bench.grid()
    history = run(TopK(FedAvg(fraction_evaluate=0.0)), grid, rounds=5)
    for record in history:
        assert record.dropped == {
            2: "the device declined: 92 °C, the limit is 85 °C",
        }
        hot = devices(record)[2].telemetry
        assert hot.policy == "declined: 92 °C, the limit is 85 °C"
        assert (hot.steps_fraction, hot.celsius_max) == (0.0, 92.0)
    bench.heat(2, 50)
    (later,) = run(TopK(FedAvg(fraction_evaluate=0.0)), grid)
    assert not later.dropped


def test_a_round_that_all_decline_keeps_the_model_and_the_run(bench: Bench) -> None:
    for node in (1, 2, 3):
        bench.heat(node, 90)
    strategy = TopK(FedAvg(fraction_evaluate=0.0), max_failed_rounds=1)
    grid = bench.grid()
    result = strategy.start(grid, initial_model(), num_rounds=2)
    assert [len(record.dropped) for record in strategy.history] == [3, 3]
    for name, array in initial_model().items():
        assert (result.arrays[name].numpy() == array.numpy()).all()
    assert not bench.asked


def test_a_device_that_declined_lost_nothing(bench: Bench) -> None:
    """Its state is untouched, and what it had sent before is settled a round later."""
    bench.heat_of = {(1, 2): 95}
    grid = bench.grid()
    states: dict[int, list[DeviceState]] = {1: [], 2: []}

    def keep(reply: Message, node: int) -> Message:
        if node in states:
            _, header = Plan.read(grid.sent[-1][1])
            state = ContextStore(grid.contexts[node].state).load(header.lineage)
            assert state is not None
            states[node].append(state)
        return reply

    grid.tamper = keep
    strategy = TopK(FedAvg(fraction_evaluate=0.0), density=0.05)
    history = run(strategy, grid, rounds=3)
    assert [set(record.dropped) for record in history] == [set(), {1}, set()]
    first, hot, last = states[1]
    assert image(hot) == image(first)
    assert last.settled == (first.pending[0].upload_id,)
    assert last.version == states[2][-1].version


def test_a_device_that_declines_its_first_request_is_known_by_its_next(
    bench: Bench,
) -> None:
    bench.heat_of = {(1, 1): 95}
    grid = bench.grid()
    history = run(TopK(FedAvg(fraction_evaluate=0.0)), grid, rounds=2)
    assert [set(record.dropped) for record in history] == [{1}, set()]
    tokens = {DeviceReport.read(content)[1].token for _, content in grid.received}
    assert len(tokens) == 3


def test_a_request_that_was_answered_is_answered_again_however_hot(
    bench: Bench,
) -> None:
    """The upload is there already: nothing has to be trained for it."""

    def heat(msg: Message, context: Context, call_next: Any) -> Message:
        bench.heat(context.node_id, 95)
        return call_next(msg, context)

    grid = Twice(numpy_app(mods=[bench.choose, compression_mod, heat]), 3)
    (record,) = run(TopK(FedAvg(fraction_evaluate=0.0)), grid)
    assert not record.dropped
    assert len(grid.both) == 3


def test_an_evaluation_is_not_declined(bench: Bench) -> None:
    for node in (1, 2, 3):
        bench.heat(node, 90)
    trained, tested = run(TopK(FedAvg()), bench.grid())
    assert len(trained.dropped) == 3
    assert not tested.dropped
    assert not any(device.telemetry.policy for device in tested.devices)


@pytest.mark.parametrize(
    ("config", "seen", "fraction"),
    [
        ({"local-steps": 20}, {"local-steps": 10}, 0.5),
        ({"local-steps": 5, "local-epochs": 4}, {"local-steps": 2}, 0.4),
        ({"local-epochs": 4}, {"local-epochs": 2}, 0.5),
        ({"local-epochs": 1}, {"local-epochs": 1}, None),
        ({"epochs": 8}, {"epochs": 8}, None),
    ],
)
def test_a_warm_device_takes_fewer_steps_of_what_its_app_knows(
    bench: Bench, config: dict[str, int], seen: dict[str, int], fraction: float | None
) -> None:
    bench.heat(1, 80)
    (record,) = run(TopK(FedAvg(fraction_evaluate=0.0)), bench.grid(), **config)
    (warm,) = (asked for asked in bench.asked if asked["node"] == 1)
    others = [asked for asked in bench.asked if asked["node"] != 1]
    assert {**warm, **seen} == warm
    assert {**config, **seen}.items() <= warm.items()
    assert all(config.items() <= asked.items() for asked in others)
    told = devices(record)[1].telemetry
    assert told.steps_fraction == fraction
    assert bool(told.policy) is (fraction is not None)
    assert not record.dropped


def test_another_power_mode_renews_the_estimate_and_so_the_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that got four times as slow has a smaller batch two rounds later."""
    speed = {1: 1e-3, 2: 1e-3, 3: 1e-3}
    grid = bench.grid()

    def at_its_speed(reply: Message, node: int) -> Message:
        report, header = DeviceReport.read(reply.content)
        asked = grid.sent[-1][1]["config"]
        samples = asked["batch-size"] * bench.asked[-1]["local-steps"]
        told = replace(report, train=samples * speed[node], encode=0.0, decode=0.0)
        put_note(reply, replace(told, start=0.0).note(header))
        if len(grid.sent) == 3 * 5:
            bench.power(1, 2)
            speed[1] = 4e-3
        return reply

    grid.tamper = at_its_speed
    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0), local_steps=20, max_batch=64, min_batch=1
    )
    history = run(strategy, grid, rounds=8)
    modes = [devices(record)[1].telemetry.power_mode for record in history]
    assert modes == [*["15W"] * 5, *["7W"] * 3]
    sizes = [devices(record)[1].batch_size for record in history]
    assert sizes[5] > 50
    assert sizes[7] < 20


def test_fewer_steps_are_not_taken_for_a_faster_device(bench: Bench) -> None:
    """Half the steps in half the time: the same speed, and the same batch."""
    grid = bench.grid()

    def at_one_speed(reply: Message, node: int) -> Message:
        report, header = DeviceReport.read(reply.content)
        samples = bench.asked[-1]["batch-size"] * bench.asked[-1]["local-steps"]
        told = replace(report, train=samples * 1e-3, encode=0.0, decode=0.0)
        put_note(reply, replace(told, start=0.0).note(header))
        return reply

    grid.tamper = at_one_speed
    bench.heat(1, 80)
    strategy = Caesar(FedAvg(fraction_evaluate=0.0), local_steps=20, max_batch=64)
    history = run(strategy, grid, rounds=5)
    estimates = strategy.method._fleet.estimates.seconds_per_sample
    assert devices(history[-1])[1].telemetry.steps_fraction == 0.5
    assert estimates.predict([0, 1, 2]) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("where", ["start", "stop", "file"])
def test_a_fault_of_the_watch_costs_no_reply(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[logging.LogRecord],
    where: str,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no sensor")

    if where == "file":
        (bench.folder / "node.toml").write_text("[server")
    else:
        monkeypatch.setattr(DeviceWatch, where, fail)
    grid = bench.grid()
    for record in run(TopK(FedAvg()), grid):
        assert not record.dropped
    assert not any(DeviceReport.read(c)[0].telemetry for _, c in grid.received)
    assert any("the board is not" in line.getMessage() for line in lines)


def test_a_watch_ends_where_the_app_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    stop = DeviceWatch.stop
    monkeypatch.setattr(
        DeviceWatch, "stop", lambda self: stopped.append(1) or stop(self)
    )

    def broken(arrays: Any, node: int, server_round: int) -> Any:
        if node == 1:
            raise RuntimeError("out of memory")
        return drift(arrays, node, server_round)

    mods = [bench.choose, compression_mod]
    grid = LocalGrid(numpy_app(mods=mods, step=broken), 3)
    (record,) = run(TopK(FedAvg(fraction_evaluate=0.0)), grid)
    assert set(record.dropped) == {1}
    assert len(stopped) == 3


@pytest.mark.parametrize(
    "told",
    [
        {"policy": "x" * 3000},
        [1],
        "{",
        {"watts-mean": math.inf},
        {"watts-mean": math.nan},
        {"watts-mean": 10**400},
        {"celsius-max": -300},
        {"policy": "y" * 200},
        {f"k{i}": 1 for i in range(40)},
        7,
    ],
)
def test_telemetry_that_no_device_can_mean_is_passed_over_and_the_reply_used(
    bench: Bench, told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid = bench.grid()

    def lie(reply: Message, node: int) -> Message:
        if node == 1:
            claim(reply, telemetry=told)
        return reply

    grid.tamper = lie
    (record,) = run(TopK(FedAvg(fraction_evaluate=0.0)), grid)
    assert not record.dropped
    assert devices(record)[1].to_row()["seconds_measured"] == 0
    assert devices(record)[2].to_row()["seconds_measured"] > 0
    assert sum("is passed over" in message for message in caplog.messages) == 1
