"""Phones that know five codecs and Jetsons that know all, in one run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import CompressionMod
from flwr_caesar.codec import inspect_frame
from flwr_caesar.strategies import (
    Caesar,
    CorrelationAware,
    ErrorBounded,
    FedComLoc,
    MagnitudePruning,
    TopK,
)
from flwr_caesar.sync.protocol import DECLINED, EVALUATED
from flwr_caesar.transport import (
    Abilities,
    DeviceReport,
    Plan,
    is_frame,
    note_of,
    record_to_frame,
)

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

PHONE = Abilities(frozenset({"dense", "topk", "prune", "lattice", "lattice_model"}))
MODEST = Abilities(frozenset({"dense"}))
PHONES, NODES = (1, 2), 4


@dataclass
class Fleet:
    """The mod of each node, and what crossed it."""

    can: Abilities | None = PHONE
    down: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    up: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    said: dict[int, list[Abilities | None]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def __call__(self, msg: Message, context: Context, call_next: Any) -> Message:
        node = context.node_id
        assert note_of(msg.content) is not None
        self.down[node] += codecs(msg)
        self.parts[node].append(Plan.read(msg.content)[0].part)
        mod = CompressionMod(can=self.can if node in PHONES else None)
        reply = mod(msg, context, call_next)
        report, header = DeviceReport.read(reply.content)
        self.up[node] += codecs(reply)
        self.statuses[node].append(header.status)
        self.said[node].append(report.can)
        return reply

    def run(self, strategy: Any, rounds: int = 3) -> LocalGrid:
        grid = LocalGrid(numpy_app(mods=[self]), NODES)
        strategy.start(grid, initial_model(), num_rounds=rounds, timeout=1)
        return grid


def codecs(message: Message) -> list[str]:
    records = message.content.array_records.values()
    return [
        inspect_frame(record_to_frame(record)).config["id"]
        for record in records
        if is_frame(record)
    ]


def average() -> FedAvg:
    return FedAvg(fraction_evaluate=1.0)


STRATEGIES = {
    "caesar": lambda **o: Caesar(average(), **o),
    "topk": lambda **o: TopK(average(), **o),
    "topk_lattice": lambda **o: TopK(average(), downlink="lattice", **o),
    "pruning": lambda **o: MagnitudePruning(average(), prune_rate=0.3, **o),
    "caesar_paper": lambda **o: Caesar(average(), codec="paper", **o),
    "error_bounded": lambda **o: ErrorBounded(average(), **o),
    "correlation": lambda **o: CorrelationAware(average(), **o),
}


def test_a_device_without_a_part_that_a_method_needs_is_not_asked() -> None:
    fleet = Fleet()
    strategy = FedComLoc(average(), lr=0.1, p=0.5)
    fleet.run(strategy, rounds=5)
    for node in PHONES:
        assert fleet.statuses[node][0] == DECLINED
        assert len(fleet.statuses[node]) == 1, "and never again"
    assert "update" in fleet.statuses[3]
    (first, *_), last = strategy.history, strategy.history[-1]
    reasons = {d.node_id: d.dropped for d in first.devices}
    assert reasons[1] == "the device declined: no part 'control_variates'"
    assert {d.node_id for d in last.devices} == {3, 4}


def test_a_restarted_server_knows_what_devices_can(tmp_path: Any) -> None:
    fleet = Fleet()
    grid = LocalGrid(numpy_app(mods=[fleet]), NODES)
    for rounds in (2, 4):
        strategy = CorrelationAware(average(), checkpoint=tmp_path / "run")
        strategy.start(grid, initial_model(), num_rounds=rounds, timeout=1)
    for node in PHONES:
        assert fleet.statuses[node].count(DECLINED) == 1
        assert set(fleet.up[node]) == {"lattice"}
    assert set(fleet.up[3]) == {"correlation"}


def test_a_device_that_learns_a_codec_says_so() -> None:
    fleet = Fleet(MODEST)
    grid = LocalGrid(numpy_app(mods=[fleet]), NODES)
    strategy = TopK(average())
    strategy.start(grid, initial_model(), num_rounds=2, timeout=1)
    assert set(fleet.up[1]) == {"dense"}
    fleet.can = PHONE
    strategy.start(grid, initial_model(), num_rounds=4, timeout=1)
    assert fleet.up[1][-1] == "topk"
    assert fleet.said[1][-1] is None


@pytest.mark.parametrize("can", [PHONE, MODEST], ids=["phone", "modest"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_each_device_gets_what_it_knows_in_one_run(name: str, can: Abilities) -> None:
    alone = Fleet(can)
    strategy = STRATEGIES[name]()
    alone.run(strategy)
    for node in PHONES:
        wrong = [codec for codec in alone.down[node] if codec not in can.codecs]
        first = alone.statuses[node].index("update")
        # Only what was asked before the server knew better, which is once.
        before = alone.statuses[node][:first]
        assert before in ([], [DECLINED, EVALUATED])
        assert DECLINED not in alone.statuses[node][first:]
        assert len(wrong) <= before.count(DECLINED)
        assert set(alone.up[node]) <= can.codecs
        assert not any(alone.parts[node][first:])
        assert "need-whole" not in alone.statuses[node]
    last = [r for r in strategy.history if r.phase == "train"][-1]
    assert sorted(d.node_id for d in last.devices if not d.dropped) == [1, 2, 3, 4]
    for node in PHONES:
        # Said until an upload that said it was applied, and then no more.
        counted = alone.statuses[node].index("update")
        assert all(can == said for said in alone.said[node][: counted + 1])
        assert not any(alone.said[node][counted + 2 :])
    if can is MODEST:
        return
    # Jetsons are asked for what they would be without phones beside them.
    usual = Fleet(None)
    usual.run(STRATEGIES[name]())
    for node in (3, 4):
        assert set(alone.up[node]) == set(usual.up[node])
        assert set(alone.down[node]) == set(usual.down[node])
