"""Recorded conversations, replayed by the core on folders of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flwr_caesar.codec import get_codec
from flwr_caesar.faults.disks import quick_folder
from tests.sync.conversation_json import comparable, content_from_json, explained
from tests.sync.record_conversations import FOLDER

from .jvm import Jvm

DENSE = get_codec("dense")
KNOWN = {"dense", "lattice", "lattice_model", "longest", "prune", "topk"}


def conversation(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_bytes())
    return found


def is_for_phones(name: str) -> bool:
    return set(conversation(name).get("needs", ())) <= KNOWN


NAMES = sorted(path.name for path in FOLDER.glob("*.json") if is_for_phones(path.name))


class Replay:
    """The devices of a conversation, each with its store in a folder."""

    def __init__(self, jvm: Jvm, name: str, folder: Path) -> None:
        self._jvm, self._folder = jvm, folder
        self._conversation = conversation(name)

    def steps(self) -> Iterator[dict[str, Any]]:
        """Yield each request; whatever else is done to the stores is done here."""
        for step in self._conversation["steps"]:
            if step["do"] == "ask":
                yield step
                continue
            store = self.store(step["to" if step["do"] == "copy" else "store"])
            shutil.rmtree(store, ignore_errors=True)
            if step["do"] == "copy":
                shutil.copytree(self.store(step["from"]), store)

    def store(self, name: str) -> Path:
        return self._folder / name

    def state(self, step: dict[str, Any]) -> Any:
        """Return the state in the store of a request."""
        reply = self._jvm.ask(
            "state",
            folder=str(self.store(step["store"])),
            lineage=self._conversation["lineage"],
        )
        return reply.values["state"]

    def ask(self, step: dict[str, Any], *, dies: int | None = None) -> dict[str, Any]:
        """Handle a request, but die before a write; return what was found then."""
        asked = {key: value for key, value in step.items() if key != "expect"}
        limit = {} if dies is None else {"dies": dies}
        reply = self._jvm.ask(
            "ask",
            folder=str(self.store(step["store"])),
            lineage=self._conversation["lineage"],
            initial=self._conversation.get("initial"),
            can=self._conversation.get("can", {}).get(step["store"]),
            step=asked,
            **limit,
        )
        model, *frames = reply.blobs
        held = DENSE.decode(model, finite=False)[0] if model else None
        return {**reply.values, "held model": held, "frames": frames}


def says(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a reply says, as its conversation has it."""
    content = content_from_json(found["reply"])
    pending = [
        SimpleNamespace(upload_id=int(p["id"]), frame=frame, payload=p["payload"])
        for p, frame in zip(found["state"]["pending"], found["frames"], strict=True)
    ]
    state: Any = SimpleNamespace(model=found["held model"], pending=pending)
    told: dict[str, Any] = explained(content, state)["says"]
    return told


def require_as_recorded(step: dict[str, Any], found: dict[str, Any]) -> None:
    expected = step["expect"]
    assert ("error" in found) == ("error" in expected), found.get("error")
    assert found["draws"] == 0
    assert found["state"] == expected["state"]
    assert found.get("app") == expected.get("app")
    if "reply" in expected:
        assert says(found) == expected["says"]
        then, now = (
            comparable(content_from_json(side["reply"])) for side in (expected, found)
        )
        assert now == then


@pytest.fixture
def stores() -> Iterator[Path]:
    """Return a folder in memory, where the system has one: syncs are many, and slow."""
    with quick_folder() as folder:
        yield folder


@pytest.mark.parametrize("name", NAMES)
def test_the_core_says_and_keeps_what_was_recorded(
    jvm: Jvm, name: str, stores: Path
) -> None:
    replay = Replay(jvm, name, stores)
    for step in replay.steps():
        require_as_recorded(step, replay.ask(step))


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_device_has_the_state_before_or_after(
    jvm: Jvm, name: str, stores: Path
) -> None:
    """Killed before each of its writes and after the last, with the reply unsent.

    With the state before, it then answers as if nothing had happened; with the one
    after, it has to say the same again, and nothing changes.
    """
    replay = Replay(jvm, name, stores)
    backup = stores / "backup"
    for step in replay.steps():
        store = replay.store(step["store"])
        restore(store, backup)
        before = replay.state(step)
        whole = replay.ask(step)
        for dies in range(whole["writes"] + 1):
            restore(backup, store)
            killed = replay.ask(step, dies=dies)
            assert killed.get("died", False) == (dies < whole["writes"])
            assert killed["state"] in (before, whole["state"])
            if killed["state"] == before:
                require_as_recorded(step, replay.ask(step))
            else:
                again = replay.ask({**step, "draws": {"tokens": [], "ids": []}})
                assert again["state"] == whole["state"]


def restore(source: Path, target: Path) -> None:
    """Make one folder what another is; nothing of nothing."""
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)


@pytest.fixture
def used(jvm: Jvm, stores: Path) -> tuple[Replay, dict[str, Any]]:
    """Return a replay whose device has an upload and a residual, and its next step."""
    replay = Replay(jvm, "lost.json", stores)
    steps = replay.steps()
    replay.ask(next(steps))
    return replay, next(steps)


def test_a_damaged_state_is_set_aside(used: tuple[Replay, dict[str, Any]]) -> None:
    """A bit anywhere in any file: the device starts anew, and deletes nothing."""
    replay, step = used
    store = replay.store(step["store"])
    (folder,) = [path for path in store.iterdir() if path.is_dir()]
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name.partition("-")[0] for name in good} == {
        "manifest",
        "model",
        "residual",
        "told",
        "upload",
    }
    assert replay.state(step) is not None
    for number, (name, data) in enumerate(sorted(good.items()), start=1):
        bad = bytearray(data)
        bad[len(bad) * number // 7] ^= 1
        (folder / name).write_bytes(bad)
        assert replay.state(step) is None
        aside = folder.with_name(f"{folder.name}.damaged-{number}")
        assert (aside / name).read_bytes() == bad
        assert {path.name for path in aside.iterdir()} == good.keys()
        restore(aside, folder)
        (folder / name).write_bytes(data)
        assert replay.state(step) is not None


def test_what_cannot_be_read_is_left_as_it_is(
    used: tuple[Replay, dict[str, Any]],
) -> None:
    replay, step = used
    store = replay.store(step["store"])
    (folder,) = [path for path in store.iterdir() if path.is_dir()]
    manifest = folder / "manifest"
    kept = manifest.read_bytes()
    manifest.unlink()
    manifest.mkdir()  # opens, and then cannot be read
    with pytest.raises(AssertionError, match="cannot be read now"):
        replay.state(step)
    asked = {**step, "draws": {"tokens": [], "ids": []}}
    with pytest.raises(AssertionError, match="cannot be read now"):
        replay.ask(asked)
    manifest.rmdir()
    manifest.write_bytes(kept)
    require_as_recorded(step, replay.ask(step))


def test_what_a_killed_write_left_behind_is_no_state(
    used: tuple[Replay, dict[str, Any]],
) -> None:
    replay, step = used
    store = replay.store(step["store"])
    (folder,) = [path for path in store.iterdir() if path.is_dir()]
    (folder / "manifest.new").write_bytes(b"half of a")
    (folder / "model-0123456789abcdef").write_bytes(b"of no manifest")
    require_as_recorded(step, replay.ask(step))
    assert not (folder / "manifest.new").exists()
    assert not (folder / "model-0123456789abcdef").exists()
