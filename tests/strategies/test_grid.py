"""Replies one by one: until all are there, a quorum of them, or the deadline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict

from flwr_caesar.flower import readdress
from flwr_caesar.strategies import grid as module
from flwr_caesar.strategies.grid import StreamingGrid

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

ANSWERS, FAILS = "answers", "fails"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted(LocalGrid):
    """Nodes 1, 2, … that answer, fail, or are silent, each from its second on."""

    inline = True

    def __init__(self, clock: Clock, *nodes: tuple[str, float]) -> None:
        super().__init__(numpy_app(), len(nodes))
        self.clock, self.nodes = clock, nodes
        self.asked: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            self.asked[f"m{message.metadata.dst_node_id}"] = message
        return list(self.asked)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in message_ids:
            request = self.asked.get(message_id)
            node = int(message_id[1:])
            kind, second = self.nodes[node - 1]
            if request is None or self.clock.now < second:
                continue
            del self.asked[message_id]
            content: Any = RecordDict({"arrays": initial_model()})
            if kind == FAILS:
                content = Error(1, "the app failed")
            readdress(request, message_id=message_id)
            reply = Message(content, reply_to=request)
            readdress(reply, src_node_id=node, reply_to_message_id=message_id)
            replies.append(reply)
        return replies


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def arrivals(
    grid: Scripted, *, to_all: bool = False, timeout: float | None = 60, **options: Any
) -> list[int]:
    messages = [
        Message(RecordDict(), dst_node_id=node + 1, message_type="train")
        for node in range(len(grid.nodes))
    ]
    found = StreamingGrid(grid, **options).send_and_receive(
        messages, timeout=timeout, to_all=to_all
    )
    return [arrival.node_id for arrival in found]


def test_replies_come_in_the_order_of_their_arrival(clock) -> None:
    grid = Scripted(clock, (ANSWERS, 9), (ANSWERS, 0), (ANSWERS, 4))
    assert arrivals(grid) == [2, 3, 1]
    assert 9 <= clock.now < 12


@pytest.mark.parametrize(
    ("quorum", "expected"), [(0.5, [1, 2, 4]), (0.51, [1, 2, 4, 3])]
)
def test_a_quorum_is_of_answers_not_of_failures(clock, quorum, expected) -> None:
    """Half of four is two answers, and a little more is three: it is rounded up."""
    grid = Scripted(clock, (ANSWERS, 0), (FAILS, 0), (ANSWERS, 50), (ANSWERS, 5))
    assert arrivals(grid, quorum=quorum) == expected


def test_a_quorum_hangs_on_what_is_settled(clock) -> None:
    """Whoever reads the replies decides on them when it is asked to."""
    grid = Scripted(clock, (ANSWERS, 0), (ANSWERS, 0), (ANSWERS, 5), (ANSWERS, 50))
    streaming = StreamingGrid(grid, quorum=0.5)
    doubtful: set[int] = set()
    streaming.expect(1e6, doubtful, lambda: doubtful.add(2))
    messages = [
        Message(RecordDict(), dst_node_id=node + 1, message_type="train")
        for node in range(4)
    ]
    found = [each.node_id for each in streaming.send_and_receive(messages)]
    assert found == [1, 2, 3]


def test_nobody_is_waited_for_after_the_deadline_or_the_timeout(clock) -> None:
    nodes = (ANSWERS, 0), (ANSWERS, 1000)
    assert arrivals(Scripted(clock, *nodes), deadline=30) == [1]
    assert clock.now == pytest.approx(30, abs=0.1)
    assert arrivals(Scripted(clock, *nodes), deadline=30, timeout=5) == [1]
    assert clock.now == pytest.approx(35, abs=0.2)


def test_a_message_to_all_waits_for_all(clock) -> None:
    grid = Scripted(clock, (ANSWERS, 0), (ANSWERS, 7))
    assert arrivals(grid, quorum=0.5, to_all=True) == [1, 2]


def test_nothing_asked_is_nothing_waited_for(clock) -> None:
    assert arrivals(Scripted(clock)) == []
    assert clock.now == 0
