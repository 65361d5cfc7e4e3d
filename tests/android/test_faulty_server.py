"""A node whose server, network and files fail in every way that we know of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from flwr.proto import fleet_pb2

from flwr_caesar.faults.disks import quick_folder
from flwr_caesar.flower import act_in_run
from flwr_caesar.transport import record_to_frame

from .faulty_fleet import (
    Fault,
    FaultyFleet,
    closed,
    cut,
    cut_after,
    garbage,
    lost,
    silent,
    status,
    too_long,
    trickles,
)
from .jvm import Jvm
from .kotlin_node import packed_examples
from .requests import BATCH, CLASSES, examples, new_server

STEPS = 5
MOST_MS = 20_000
Serve = Callable[..., dict[str, Any]]
OF_A_MESSAGE = ("pull-object", "confirm-message-received", "push-messages")
CALLS = ("send-node-heartbeat", "pull-messages", *OF_A_MESSAGE, "push-object")
FAULTS: dict[str, Fault] = {
    "429": status(429, {"Retry-After": "7"}),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "closed": closed,
    "cut": cut,
    "cut after": cut_after,
    "garbage": garbage,
    "silent": silent,
    "trickles": trickles,
    "too long": too_long,
}


@pytest.fixture(autouse=True)
def run() -> None:
    """Let messages be made outside of a run."""
    act_in_run(1)


@pytest.fixture
def phone() -> Iterator[Path]:
    """Return a folder in memory, where the system has one: syncs are many, and slow."""
    with quick_folder() as folder:
        yield folder / "phone"


@pytest.fixture
def fleet(phone: Path) -> Iterator[FaultyFleet]:
    with FaultyFleet(phone / "flight") as fleet:
        yield fleet
        assert not fleet.too_early


@pytest.fixture
def serve(jvm: Jvm, fleet: FaultyFleet, phone: Path) -> Serve:
    """Return a function that starts a node, and has it take some steps."""

    def serve(steps: int = 1, *, folder: Path = phone, **given: Any) -> dict[str, Any]:
        blob = packed_examples(*examples(), CLASSES)
        asked = {"sleeps": 200, **given, "folder": str(folder), "steps": steps}
        return jvm.ask("serve", [blob], server=fleet.address, **asked).values

    return serve


def request() -> RecordDict:
    asked = {"local-steps": STEPS, "batch-size": BATCH}
    return new_server().ask([1], config=asked)[1]


def upload(message: Any) -> bytes:
    return record_to_frame(message.content.array_records["arrays"])


def test_a_good_server(fleet: FaultyFleet, serve: Serve, phone: Path) -> None:
    message = fleet.send(request())
    found = serve(2)
    assert (found["steps"], found["trained"]) == ([True, False], STEPS)
    assert found["sleeps"] == []
    assert fleet.confirmed == [message.object_id]
    (reply,) = fleet.replies
    assert reply.metadata.reply_to_message_id == message.object_id
    assert upload(reply)
    assert not list((phone / "flight").iterdir())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "-"))
def test_what_passes_is_waited_for(
    fleet: FaultyFleet, serve: Serve, phone: Path, fault: str
) -> None:
    """Three times at each call; trained once, answered once, and nothing is left."""
    slow = fault in ("silent", "too long")
    times, calls = (1, ("pull-object", "push-object")) if slow else (3, CALLS)
    serve(1)  # so that it has a node id, and begins with a heartbeat
    for call in calls:
        fleet.faults[call].extend([FAULTS[fault]] * times)
    fleet.send(request())
    found = serve(2, tick=25_000 if fault == "trickles" else 0)
    assert found["steps"] == [True, False]
    assert found["trained"] == STEPS
    assert len(fleet.replies) == len(fleet.confirmed) == 1
    assert len(found["sleeps"]) == times * len(calls)
    least, most = (7_000, 27_000) if fault == "429" else (0, MOST_MS)
    assert all(least <= ms <= most for ms in found["sleeps"])
    assert not list((phone / "flight").iterdir())


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("99999999999999", 600_000),
        ("-5", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_how_long_a_server_may_ask_to_wait_is_bounded(
    fleet: FaultyFleet, serve: Serve, told: str, asked: int
) -> None:
    fleet.faults["pull-messages"].append(status(503, {"Retry-After": told}))
    (slept,) = serve(1)["sleeps"]
    assert asked <= slept <= asked + 1_000


def test_waiting_grows_to_a_bound(fleet: FaultyFleet, serve: Serve) -> None:
    fleet.faults["pull-messages"].extend([closed] * 60)
    sleeps = serve(1)["sleeps"]
    assert len(sleeps) == 60
    assert all(ms <= min(MOST_MS, 1_000 << min(i, 10)) for i, ms in enumerate(sleeps))
    assert max(sleeps) > 5_000


@pytest.mark.parametrize("code", [401, 404, 412])
@pytest.mark.parametrize("call", ["pull-messages", *OF_A_MESSAGE, "push-object"])
def test_what_waiting_does_not_mend_is_said_and_nothing_is_lost(
    fleet: FaultyFleet, serve: Serve, call: str, code: int
) -> None:
    fleet.faults[call].extend([status(code)] * 2)
    fleet.send(request())
    found = serve(3)
    assert [f"HTTP {code}" in str(step) for step in found["steps"]] == [1, 1, 0]
    assert found["steps"][-1] is True
    assert found["sleeps"] == []
    assert found["trained"] == STEPS
    assert len(fleet.replies) == 1


@pytest.mark.parametrize("call", OF_A_MESSAGE)
def test_a_message_of_a_run_that_is_over_is_dropped(
    fleet: FaultyFleet, serve: Serve, phone: Path, call: str
) -> None:
    fleet.faults[call].append(status(403))
    fleet.send(request())
    fleet.send(request())
    found = serve(3)
    assert found["steps"] == [True, True, False]
    assert len(fleet.replies) == 1
    assert not list((phone / "flight").iterdir())


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_reply_that_is_refused_does_not_stop_the_node(
    jvm: Jvm, fleet: FaultyFleet, serve: Serve, phone: Path, code: int
) -> None:
    """What it computed waits in its state for the next request to settle."""
    fleet.faults["push-object"].append(status(code))
    fleet.send(request())
    fleet.send(RecordDict())
    found = serve(3)
    assert found["steps"] == [True, True, False]
    assert any(f"HTTP {code}" in line for line in found["log"])
    assert [reply.has_error() for reply in fleet.replies] == [True]
    lineage = f"{new_server().lineage:016x}"
    kept = jvm.ask("state", folder=str(phone / "states"), lineage=lineage)
    assert len(kept.values["state"]["pending"]) == 1


def damaged(exchange: Any, answer: Callable[[], bytes]) -> None:
    """Flip a bit of the object's content."""
    body = bytearray(answer())
    body[-1] ^= 1
    exchange.reply(200, {}, bytes(body))


def unavailable(exchange: Any, answer: Callable[[], bytes]) -> None:
    exchange.reply(200, {}, b"\x08\x01")


def test_a_damaged_object_is_pulled_again(fleet: FaultyFleet, serve: Serve) -> None:
    fleet.faults["pull-object"].extend([damaged] * 3)
    fleet.send(request())
    found = serve(1)
    assert (len(found["sleeps"]), len(fleet.replies)) == (3, 1)


def test_an_object_that_is_always_damaged_is_given_up(
    fleet: FaultyFleet, serve: Serve
) -> None:
    fleet.faults["pull-object"].extend([damaged] * 10)
    fleet.send(request())
    fleet.send(request())
    found = serve(2)
    assert found["steps"] == [True, True]
    assert len(fleet.confirmed) == len(fleet.replies) == 1


def test_an_object_may_come_late(fleet: FaultyFleet, serve: Serve) -> None:
    fleet.faults["pull-object"].extend([unavailable] * 100)
    fleet.send(request())
    found = serve(1)
    assert len(fleet.replies) == 1
    assert len(found["sleeps"]) == 100
    assert max(found["sleeps"]) == 10_000


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_off_by_hours(
    fleet: FaultyFleet, serve: Serve, hours: int
) -> None:
    """The device's own, or the server's: its signatures and replies are in time."""
    message = fleet.send(request())
    assert serve(1, clock=hours * 3_600_000)["steps"] == [True]
    (reply,) = fleet.replies
    # An answer's date is a whole second.
    assert -2 < reply.metadata.created_at - message.metadata.created_at < 60
    assert 3500 < reply.metadata.ttl < 3602


def test_a_date_that_is_wrong_does_not_put_a_clock_out(
    fleet: FaultyFleet, serve: Serve
) -> None:
    """Refused twice for another reason, by a server that dates its answers wrongly."""
    fleet.dated = 5 * 3600.0
    fleet.send(request())
    fleet.faults["pull-object"].extend([status(401)] * 2)
    found = serve(2)
    assert "HTTP 401" in found["steps"][0]
    assert found["steps"][1] is True
    assert len(fleet.replies) == 1


def test_the_same_message_twice_is_trained_once(
    fleet: FaultyFleet, serve: Serve
) -> None:
    content = request()
    fleet.send(content)
    fleet.send(content)
    found = serve(3)
    assert found["steps"] == [True, True, False]
    assert found["trained"] == STEPS
    first, second = fleet.replies
    assert upload(first) == upload(second)


def test_pulls_that_yield_nothing_for_long(fleet: FaultyFleet, serve: Serve) -> None:
    found = serve(50)
    assert found["steps"] == [False] * 50
    fleet.send(request())
    assert serve(1)["trained"] == STEPS


@pytest.mark.parametrize("call", ["push-messages", "push-object"])
def test_a_push_whose_answer_is_lost_says_the_same_again(
    fleet: FaultyFleet, serve: Serve, phone: Path, call: str
) -> None:
    fleet.faults[call].extend([lost] * 3)
    fleet.send(request())
    found = serve(2)
    assert found["trained"] == STEPS
    assert len(fleet.replies) == 1
    assert fleet.calls.count("push-messages") == (4 if call == "push-messages" else 1)


@pytest.mark.parametrize("call", [*OF_A_MESSAGE, "push-object"])
def test_a_node_that_ends_while_it_waits_goes_on(
    fleet: FaultyFleet, serve: Serve, call: str
) -> None:
    fleet.faults[call].extend([status(503)] * 3)
    fleet.send(request())
    first = serve(1, sleeps=2)
    assert "the system ends the node" in first["steps"][-1]
    second = serve(1)
    assert first["trained"] + second["trained"] == STEPS
    assert len(fleet.replies) == 1


def test_a_training_that_is_interrupted_goes_on(
    fleet: FaultyFleet, serve: Serve
) -> None:
    fleet.send(request())
    first = serve(1, interrupts=2)
    assert "InterruptedException" in first["steps"][0]
    assert not fleet.replies
    second = serve(1)
    assert (first["trained"], second["trained"]) == (3, STEPS - 3)
    assert [reply.has_error() for reply in fleet.replies] == [False]


def test_a_message_whose_time_is_over_is_not_trained(
    fleet: FaultyFleet, serve: Serve, phone: Path
) -> None:
    fleet.send(request(), ttl=0.001)
    found = serve(2)
    assert (found["steps"], found["trained"]) == ([True, False], 0)
    assert not fleet.confirmed
    assert not list((phone / "flight").iterdir())
    fleet.send(request())
    assert serve(1)["trained"] == STEPS


@pytest.mark.parametrize("call", [*OF_A_MESSAGE, "push-object"])
def test_waiting_ends_with_the_time_of_its_message(
    fleet: FaultyFleet, serve: Serve, phone: Path, call: str
) -> None:
    fleet.send(request(), ttl=100.0)
    fleet.send(request(), ttl=1e9)
    fleet.faults[call].extend([closed] * 60)
    found = serve(3)
    assert "IOException" in found["steps"][0] or "Socket" in found["steps"][0]
    assert found["steps"][1:] == [True, True]
    assert len(fleet.replies) == 1
    assert not list((phone / "flight").iterdir())


def test_a_server_gets_no_file_that_is_no_part_of_the_reply(
    fleet: FaultyFleet, serve: Serve, phone: Path
) -> None:
    """Not even one that lies there under its digest."""
    secret = b"nobody's business"
    name = hashlib.sha256(secret).hexdigest()

    def greedy(exchange: Any, answer: Callable[[], bytes]) -> None:
        more = fleet_pb2.PushMessagesResponse(objects_to_push=[name, "../node-id"])
        exchange.reply(200, {}, answer() + more.SerializeToString())

    serve(1)
    (phone / "flight" / name).write_bytes(secret)
    fleet.faults["push-messages"].append(greedy)
    fleet.send(request())
    assert serve(1)["steps"] == [True]
    assert len(fleet.replies) == 1
    assert secret not in fleet.pushed.values()


@pytest.mark.parametrize("name", ["message", "reply"])
@pytest.mark.parametrize("how", ["bit", "cut", "empty"])
def test_a_damaged_file_in_flight_is_set_aside(
    fleet: FaultyFleet, serve: Serve, phone: Path, name: str, how: str
) -> None:
    fleet.send(request())
    call = "confirm-message-received" if name == "message" else "push-object"
    fleet.faults[call].extend([closed] * 5)
    serve(1, sleeps=2)
    path = phone / "flight" / name
    good = path.read_bytes()
    flipped = bytes([*good[:9], good[9] ^ 1, *good[10:]])
    bad = {"bit": flipped, "cut": good[:-2], "empty": b""}[how]
    path.write_bytes(bad)
    found = serve(2)
    assert any("not what was written" in line for line in found["log"])
    assert path.with_name(f"{name}.damaged").read_bytes() == bad
    # The message is still there when the reply is lost, and is answered from the state.
    assert len(fleet.replies) == (name == "reply")
    fleet.send(request())
    serve(1)
    assert len(fleet.replies) == 1 + (name == "reply")
