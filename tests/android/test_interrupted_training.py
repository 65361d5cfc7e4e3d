"""Trainings that end before they are done: killed, or stopped by the system."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.faults.disks import quick_folder
from tests.sync.conversation_json import content_from_json, content_to_json

from .jvm import Jvm
from .kotlin_node import packed_examples
from .requests import BATCH, CLASSES, examples, new_server

STEPS = 20
EVERY = 3
Life = Callable[..., dict[str, Any]]


def request(server: Any = None, **config: Any) -> list[Any]:
    """Return a message that asks for some steps, across several epochs."""
    asked = {"local-steps": STEPS, "batch-size": BATCH, "lr": 0.1, **config}
    content = (server or new_server()).ask([1], config=asked)[1]
    return content_to_json(content)


@pytest.fixture
def stores() -> Iterator[Path]:
    """Return a folder in memory, where the system has one: syncs are many, and slow."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def live(jvm: Jvm, stores: Path) -> Life:
    """Return a function that has a device live once, with a message to answer."""

    def life(message: list[Any], **given: Any) -> dict[str, Any]:
        defaults = {"folder": str(stores / "phone"), "every": EVERY, "ends": "done"}
        blob = given.pop("blob", packed_examples(*examples(), CLASSES))
        asked = {**defaults, **given, "message": message, "kind": "train"}
        return jvm.ask("train", [blob], **asked).values

    return life


@pytest.fixture
def uninterrupted(live: Life, stores: Path) -> dict[str, Any]:
    found = live(request(), folder=str(stores / "other"))
    assert (found["steps"], found["log"]) == (STEPS, [])
    assert not list((stores / "other" / "training").iterdir())
    return found


@pytest.mark.parametrize("ends", ["killed", "interrupted"])
def test_it_goes_on_and_sends_the_same_bytes(
    live: Life, uninterrupted: dict[str, Any], stores: Path, ends: str
) -> None:
    """Ended at each of its steps, of which the last that were kept are not lost."""
    for at in range(STEPS - 1):
        folder = str(stores / f"phone-{at}")
        first = live(request(), folder=folder, ends=ends, at=at)
        assert first["ended"] == ends
        # A step that is under way when the thread is interrupted is taken to its end.
        taken = at + 1 if ends == "interrupted" else at
        kept = taken if ends == "interrupted" else at // EVERY * EVERY
        assert first["steps"] == taken
        second = live(request(), folder=folder)
        assert second["steps"] == STEPS - kept
        assert second["reply"] == uninterrupted["reply"]


def test_what_is_done_is_answered_though_its_thread_is_interrupted(
    live: Life, uninterrupted: dict[str, Any]
) -> None:
    """All files of the state are written after that."""
    found = live(request(), ends="interrupted", at=STEPS - 1)
    assert found["was interrupted"]
    assert found["reply"] == uninterrupted["reply"]


def test_it_goes_on_however_often_it_ends(
    live: Life, uninterrupted: dict[str, Any]
) -> None:
    for life in range(3):
        found = live(request(), ends="killed", at=EVERY + 1)
        assert found["log"] == ["a training goes on where it was interrupted"] * (
            life > 0
        )
    found = live(request())
    assert found["steps"] == STEPS - 3 * EVERY
    assert found["reply"] == uninterrupted["reply"]


def test_it_is_killed_before_each_write(
    live: Life, uninterrupted: dict[str, Any], stores: Path
) -> None:
    whole = live(request(), folder=str(stores / "whole"))
    for dies in range(whole["writes"]):
        folder = stores / f"phone-{dies}"
        assert live(request(), folder=str(folder), dies=dies)["ended"] == "killed"
        leftover = folder / "training" / "training.new"
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_bytes(b"half of")
        found = live(request(), folder=str(folder))
        # After the state was saved, what was told is told again, in another order.
        assert sorted(found["reply"]) == sorted(uninterrupted["reply"])
        assert not (folder / "training" / "training").exists()


def test_of_another_message_it_begins_anew(live: Life, stores: Path) -> None:
    """Another model, another request for the same, or other settings."""
    for name, other in {
        "request": request(second_request()),
        "rate": request(lr=0.2),
        "batch": request(**{"batch-size": BATCH + 1}),
    }.items():
        folder = str(stores / name)
        assert live(request(), folder=folder, ends="killed", at=10)["steps"] == 10
        found = live(other, folder=folder)
        assert found["steps"] == STEPS
        alone = live(other, folder=folder + " alone")
        assert found["reply"] == alone["reply"]


def second_request() -> Any:
    """Return a server that has asked for the same once before."""
    server = new_server()
    server.ask([1])
    server.session.close_phase()
    server.round = 0
    return server


def test_of_other_examples_it_begins_anew(live: Life) -> None:
    live(request(), ends="killed", at=10)
    blob = packed_examples(*(part[:-1] for part in examples()), CLASSES)
    found = live(request(), blob=blob)
    assert found["steps"] == STEPS
    assert "the engine or its examples are others now" in found["log"][0]


def test_fewer_steps_than_were_taken_end_it_at_once(live: Life) -> None:
    live(request(), ends="killed", at=10)
    assert live(request(**{"local-steps": 5}))["steps"] == 0


def test_a_damaged_one_is_set_aside(
    live: Life, uninterrupted: dict[str, Any], stores: Path
) -> None:
    folder = stores / "phone" / "training"
    live(request(), ends="killed", at=10)
    good = (folder / "training").read_bytes()
    for place in (0, 20, 60, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        (folder / "training").write_bytes(bad)
        found = live(request(), ends="killed", at=1)
        assert "not what was written" in found["log"][0]
        assert (folder / "training.damaged").read_bytes() == bad
        assert not (folder / "training").exists()
    for size in (0, 10, 71, len(good) - 1):
        (folder / "training").write_bytes(good[:size])
        found = live(request(), ends="killed", at=1)
        assert (folder / "training.damaged").read_bytes() == good[:size]
    found = live(request())
    assert (found["steps"], found["reply"]) == (STEPS, uninterrupted["reply"])


def test_a_full_disk_costs_no_training(
    live: Life, uninterrupted: dict[str, Any], stores: Path
) -> None:
    folder = stores / "phone"
    folder.mkdir()
    (folder / "training").write_bytes(b"where the folder would be")
    found = live(request())
    assert found["reply"] == uninterrupted["reply"]
    assert any("cannot be kept" in line for line in found["log"])


def test_the_server_takes_what_came_of_it(
    live: Life, uninterrupted: dict[str, Any]
) -> None:
    server = new_server()
    message = request(server)
    live(message, ends="interrupted", at=7)
    found = live(message)
    assert json.dumps(found["reply"]) == json.dumps(uninterrupted["reply"])
    assert server.hear(1, content_from_json(found["reply"])).counts
