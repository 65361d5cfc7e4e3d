"""Each recorded conversation again, with the device of today; no file changes ever."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.clients.cached_reply import CachedReply
from flwr_caesar.faults.disks import quick_folder
from flwr_caesar.flower import act_in_run
from flwr_caesar.sync.settle import Settled

from .conversation import Draws, Replay
from .conversation_json import comparable, content_from_json
from .record_conversations import FOLDER, read_digests

NAMES = sorted(path.name for path in FOLDER.glob("*.json"))


def replayed(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what a file says of each request, and what is found now."""
    conversation = json.loads((FOLDER / name).read_bytes())
    assert conversation["format"] == 1
    with quick_folder() as folder:
        return _replayed(conversation, folder)


def _replayed(
    conversation: dict[str, Any], folder: Path
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    replay = Replay(folder, conversation)
    lineage = int(conversation["lineage"], 16)
    pairs = []
    for step in conversation["steps"]:
        if step["do"] == "copy":
            replay.copy(step["from"], step["to"])
        elif step["do"] == "delete":
            replay.delete(step["store"])
        else:
            draws = Draws(step["draws"], iter(()))
            found = replay.ask(step, lineage=lineage, draws=draws)
            assert draws.to_json() == step["draws"]
            pairs.append((step["expect"], found))
    return pairs


@pytest.mark.parametrize("name", NAMES)
def test_the_device_says_and_keeps_what_it_did_then(name):
    act_in_run(1)
    for expected, found in replayed(name):
        assert ("reply" in expected) == ("reply" in found)
        replies = [each.pop("reply", None) for each in (expected, found)]
        errors = [each.pop("error", None) for each in (expected, found)]
        assert found == expected
        assert bool(errors[0]) == bool(errors[1])
        if replies[0] is not None:
            then, now = map(content_from_json, replies)
            assert comparable(now) == comparable(then)


def test_no_conversation_changes():
    digests = read_digests()
    assert len(digests) >= 39, "lines are only added"
    assert sorted(digests) == NAMES
    for name, digest in digests.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


MOD = "flwr_caesar.clients.handling"
BROKEN = {
    "lost.json": ("flwr_caesar.sync.settle.add_floats", lambda left, right: dict(left)),
    "twice.json": (
        "flwr_caesar.clients.handling.CachedReply.beside",
        lambda *_: CachedReply(),
    ),
    "stranger.json": ("flwr_caesar.sync.device.MAX_PENDING", 5),
    "copied.json": (
        "flwr_caesar.sync.settle._forfeit",
        lambda state, *_: Settled(state),
    ),
    "raised.json": (f"{MOD}.nonnegative", lambda _: frozenset()),
    "forget.json": (
        "flwr_caesar.clients.handling.forget_old",
        lambda state, *_: (state, {}),
    ),
    "abilities.json": (f"{MOD}.must_report", lambda *_: False),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_device_that_does_otherwise_is_found_out(name, monkeypatch):
    act_in_run(1)
    monkeypatch.setattr(*BROKEN[name])
    try:
        pairs = replayed(name)
    except (AssertionError, KeyError):  # draws left over, or an app that none expected
        return
    kept = [{k: each[k] for k in ("says", "state") if k in each} for each, _ in pairs]
    found = [{k: each[k] for k in ("says", "state") if k in each} for _, each in pairs]
    replies = [
        [comparable(content_from_json(e["reply"])) for e in pair if "reply" in e]
        for pair in pairs
    ]
    same = all(reply[0] == reply[-1] for reply in replies if reply)
    assert kept != found or not same
