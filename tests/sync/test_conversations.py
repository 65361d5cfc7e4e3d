"""Each recorded conversation again, with the device of today; no file changes ever."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from flwr_caesar.flower import act_in_run

from .conversation import Draws, Replay, comparable, content_from_json
from .record_conversations import FOLDER, read_digests

NAMES = sorted(path.name for path in FOLDER.glob("*.json"))


def replayed(name: str, folder: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what a file says of each request, and what is found now."""
    conversation = json.loads((FOLDER / name).read_bytes())
    assert conversation["format"] == 1
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
def test_the_device_says_and_keeps_what_it_did_then(name, tmp_path):
    act_in_run(1)
    for expected, found in replayed(name, tmp_path):
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
    assert sorted(digests) == NAMES
    for name, digest in digests.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


def test_a_change_of_what_is_kept_is_noticed(tmp_path):
    """A replay that takes no notice of a device would pass with any."""
    act_in_run(1)
    (expected, found), *_ = replayed("lost.json", tmp_path)
    for key in ("token", "order", "held", "residual", "pending"):
        assert expected["state"][key] == found["state"][key]
        assert expected["state"][key] not in (None, [], {})
