"""A device says what it can until it knows that the server has heard it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.reported import must_report, reported
from tests.sync.parties import Device, Server

CAN = "all that it can"


def say(device: Device, text: str = CAN) -> None:
    """Let the newest upload of a device have said something."""
    upload = device.state.pending[-1].upload_id
    device.state = reported(device.state, text, upload)


def must(server: Server, device: Device, text: str = CAN) -> bool:
    header, _ = server.ask([device])[device.node_id]
    device.take(header, _)
    return must_report(device.state, header, text)


def test_it_is_said_until_an_upload_that_said_it_is_applied():
    server, device = Server(), Device(1)
    assert must(server, device)
    say(device)
    server.close()  # the first reply was lost
    server.round(device)
    say(device)
    assert not must(server, device)
    server.close()


def test_what_returns_was_not_heard():
    server, device = Server(), Device(1)
    server.round(device)
    server.round(device, lose=[device])
    say(device)
    assert must(server, device)
    assert device.state.reported == ""


def test_another_text_and_another_node_are_said():
    server, device = Server(), Device(1)
    server.round(device)
    say(device)
    assert not must(server, device)
    server.close()
    assert must(server, device, "more")
    server.close()
    device.node_id = 9
    assert must(server, device)


def test_a_copy_that_starts_anew_has_said_nothing():
    server, device, copy = Server(), Device(1), Device(2)
    server.round(device)
    say(device)
    copy.state = device.state
    server.round(device)
    server.round(copy)
    server.round(copy)
    assert copy.state.token != device.state.token
    assert (copy.state.reported, copy.state.reported_by) == ("", 0)


@pytest.mark.parametrize("kind", ["folder", "context"])
def test_it_is_kept_with_the_state(kind, tmp_path):
    from flwr.app import RecordDict

    store = FolderStore(tmp_path) if kind == "folder" else ContextStore(RecordDict())
    server, device = Server(), Device(1)
    server.round(device)
    for state in (device.state, reported(device.state, CAN, 2**64 - 1)):
        store.save(state)
        found = store.load(state.lineage)
        assert (found.reported, found.reported_by) == (
            state.reported,
            state.reported_by,
        )
    store.save(replace(device.state, reported=""))
