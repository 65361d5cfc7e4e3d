"""The supervisor against a made-up world whose clock moves only when it waits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flwr_caesar.deploy import supernode
from flwr_caesar.deploy.failures import Cause, Failure
from flwr_caesar.deploy.metered import Metered, Window
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.notify import Notifier
from flwr_caesar.deploy.policy import Readings
from flwr_caesar.deploy.probe import Probed, Standing
from flwr_caesar.deploy.supernode import SuperNode
from flwr_caesar.deploy.supervisor import HUNG_SECONDS, Supervisor, World
from flwr_caesar.deploy.words import Advice

KNOWN = Probed(standing=Standing.ENROLLED)
DOWN = Probed(standing=Standing.UNREACHABLE, failure=Failure(Cause.REFUSED))
NODE = NodeFile(
    address="fleet.example:8443",
    ca=Path("/x/ca.crt"),
    name="jetson-07",
    key=Path("/x/device.key"),
    partition_id=0,
    num_partitions=1,
    state_dir=Path("/x/state"),
)


@dataclass
class FakeNode:
    """A SuperNode that comes online at once and lives for so many seconds."""

    seconds: Callable[[], float]
    lives: float = 1e9
    code: int = 0
    lines: Sequence[str] = ()
    stuck_after: float = 1e9
    never_online: bool = False
    executor_lives: float = 1e9
    link_events: int = 0
    stopped: bool = False
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.seconds()

    @property
    def age(self) -> float:
        return self.seconds() - self.started

    @property
    def online(self) -> bool:
        return not self.never_online

    @property
    def exit_code(self) -> int | None:
        return self.code if self.stopped or self.age >= self.lives else None

    def progress(self) -> int:
        return int(min(self.age, self.stuck_after))

    def executes(self) -> bool:
        return self.age < self.executor_lives

    def stop(self) -> None:
        self.stopped = True

    def tail(self) -> Sequence[str]:
        return self.lines


class Fake:
    """A world: SuperNodes of a script, then ones that live, and its answers."""

    def __init__(self, *scripted: dict[str, object], until: float = 1000.0) -> None:
        self.seconds = 0.0
        self.until = until
        self.scripted = list(scripted)
        self.started: list[float] = []
        self.nodes: list[FakeNode] = []
        self.said: list[str] = []
        self.probed: list[float] = []
        self.answer: Callable[[float], Probed] = lambda _: KNOWN
        self.problem: Callable[[float], Advice | None] = lambda _: None
        self.readings: Callable[[float], Readings] = lambda _: Readings()
        self.midnight = datetime(2026, 11, 26)
        self.statuses: list[str] = []

    def run(self, node: NodeFile = NODE) -> None:
        notifier = Notifier({})
        notifier.status = self.statuses.append  # type: ignore[method-assign]
        Supervisor(
            node,
            World(
                start=self._start,
                check=lambda: self.problem(self.seconds),
                probe=self._probe,
                used=lambda now: self.readings(self.seconds),
                wait=self._wait,
                say=self.said.append,
                notifier=notifier,
                clock=lambda: self.seconds,
                now=lambda: self.midnight + timedelta(seconds=self.seconds),
            ),
        ).run()

    def _start(self) -> FakeNode:
        script = self.scripted.pop(0) if self.scripted else {}
        self.started.append(self.seconds)
        self.nodes.append(FakeNode(lambda: self.seconds, **script))  # type: ignore[arg-type]
        return self.nodes[-1]

    def _probe(self, state: str) -> Probed:
        self.probed.append(self.seconds)
        return self.answer(self.seconds)

    def _wait(self, seconds: float) -> bool:
        self.seconds += seconds
        return self.seconds >= self.until


REFUSED = {
    "lives": 3,
    "code": 1,
    "never_online": True,
    "lines": ["Exit Code: 305", "[code: 2004] Failed to activate SuperNode."],
}


def test_a_healthy_node_is_started_once_watched_and_stopped() -> None:
    world = Fake()
    world.run()
    assert world.started == [0]
    assert world.nodes[0].stopped
    assert world.said == ["Online: jetson-07 at fleet.example:8443"]
    assert world.probed[:4] == [0, 60, 120, 180]
    assert "online" in world.statuses


def test_already_online_is_waited_out_and_counted_down() -> None:
    world = Fake(REFUSED)
    world.run()
    assert world.started == [0, 63]
    assert "already online" in world.said[0]
    counted = [line.rpartition("; ")[2] for line in world.said[1:4]]
    assert counted == ["waiting 60 s", "waiting 40 s", "waiting 20 s"]
    assert "already online" in world.said[2]


def test_after_a_crash_only_what_is_left_of_the_minute_is_waited() -> None:
    crashed = {"lives": 100, "code": -9}
    world = Fake(crashed, REFUSED)
    world.run()
    # Started again 5 s after the crash, refused 3 s later, 60 s after it was last seen.
    assert world.started[:2] == [0, 105]
    assert 159 <= world.started[2] <= 161
    assert "SIGKILL" in world.said[1]


def test_still_online_after_the_minute_means_a_copied_key_and_is_tried_for_ever() -> (
    None
):
    world = Fake(*[REFUSED] * 8)
    world.run()
    assert len(world.started) == 9
    assert any("another device has a copy" in line for line in world.said[4:])


def test_a_server_that_is_down_is_said_once_and_the_node_starts_when_it_is_back() -> (
    None
):
    world = Fake()
    world.answer = lambda seconds: DOWN if seconds < 100 else KNOWN
    world.run()
    assert len(world.started) == 1
    assert world.started[0] >= 100
    assert sum("Nothing listens" in line for line in world.said) == 1
    assert "The server answers and knows this device" in world.said


def test_a_running_node_outlives_a_server_that_goes_away_and_comes_back() -> None:
    world = Fake()
    world.answer = lambda seconds: DOWN if 100 < seconds < 400 else KNOWN
    world.run()
    assert world.started == [0]
    assert [line[:16] for line in world.said[1:]] == [
        "Nothing listens ",
        "The server answe",
    ]


def test_a_lost_connection_is_explained_at_once() -> None:
    world = Fake(until=130)
    world.answer = lambda seconds: DOWN if seconds > 70 else KNOWN
    wait = world._wait

    def lose(seconds: float) -> bool:
        world.nodes[0].link_events = int(world.seconds >= 80)
        return wait(seconds)

    world._wait = lose  # type: ignore[method-assign]
    world.run()
    assert world.probed == [0, 60, 81]
    assert "Nothing listens" in world.said[-1]


def test_waits_grow_to_five_minutes_and_shrink_after_a_good_start() -> None:
    failing = {"lives": 1, "code": 1, "never_online": True}
    world = Fake(*[failing] * 8, {"lives": 90, "code": 1}, until=2500)
    world.run()
    gaps = [b - a - 1 for a, b in zip(world.started, world.started[1:], strict=False)]
    assert gaps[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert world.started[9] - world.started[8] - 90 == 5


def test_a_process_that_does_not_move_is_ended_and_started_again() -> None:
    world = Fake({"stuck_after": 50, "never_online": True})
    world.run()
    assert world.nodes[0].stopped
    assert world.started[1] == 50 + HUNG_SECONDS + 1 + 5
    assert "main thread" in world.said[0]


@pytest.mark.parametrize(("lives", "again"), [(100, 106), (0, 18)])
def test_a_supernode_without_its_executor_is_started_again(
    lives: float, again: float
) -> None:
    world = Fake({"executor_lives": lives})
    world.run()
    assert world.nodes[0].stopped
    assert world.started == [0, again]
    assert "flower-superexec, which starts the apps, ended" in world.said[1]


def test_a_killed_supernode_that_lost_its_children_first_is_said_to_be_killed() -> None:
    world = Fake({"executor_lives": 100, "lives": 100.5, "code": -9})
    world.run()
    assert "was killed (SIGKILL)" in world.said[1]
    assert not any("flower-superexec" in line for line in world.said)


def test_where_children_are_not_listed_the_executor_is_taken_to_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = object.__new__(SuperNode)
    monkeypatch.setattr(SuperNode, "pid", 2**30)
    assert node.executes()
    monkeypatch.setattr(SuperNode, "pid", os.getpid())
    assert not node.executes()


@pytest.mark.parametrize(
    ("command", "lives"),
    [(None, True), (b"python\0/x/flower-superexec\0", True), (b"sleep\0", False)],
)
def test_an_executor_that_its_own_user_may_not_see_is_taken_to_live(
    monkeypatch: pytest.MonkeyPatch, command: bytes | None, lives: bool
) -> None:
    # Flower makes it undumpable: under ProtectProc=invisible it is in no /proc.
    node = object.__new__(SuperNode)
    monkeypatch.setattr(SuperNode, "pid", os.getpid())
    monkeypatch.setattr(supernode, "_command_of", lambda _: command)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert node.executes() == lives
        finally:
            child.kill()


def test_what_is_wrong_on_the_machine_keeps_it_from_starting_until_it_is_mended() -> (
    None
):
    world = Fake()
    world.problem = lambda s: Advice("No key", "make one") if s < 30 else None
    world.run()
    assert world.started == [35]
    assert world.said[0] == "No key; make one"
    assert world.probed[0] == 35


def test_outside_its_hours_a_metered_node_is_stopped_and_sends_nothing() -> None:
    hours = Metered(windows=(Window.parse("01:00-02:00"),))
    world = Fake(until=3 * 3600)
    world.run(_metered(hours))
    assert len(world.started) == 1
    assert 3600 <= world.started[0] <= 3660
    assert world.nodes[0].stopped
    assert min(world.probed) >= 3600
    assert max(world.probed) <= 7200
    assert "back at 01:00" in world.said[0]
    # Six times an hour, not sixty.
    assert len(world.probed) <= 7


def test_a_node_whose_day_is_used_up_is_stopped_until_tomorrow() -> None:
    budget = Metered(bytes_a_day=5_000_000)
    world = Fake(until=90_000)
    world.readings = lambda s: Readings(
        bytes_today=6_000_000 if 600 <= s < 86_400 else 0
    )
    world.run(_metered(budget))
    assert world.nodes[0].stopped
    assert 86_400 <= world.started[1] <= 86_460
    assert "the 5.0 MB of today are used" in world.said[1]


def _metered(metered: Metered) -> NodeFile:
    fields = {name: getattr(NODE, name) for name in NODE.__dataclass_fields__}
    return NodeFile(**{**fields, "metered": metered})
