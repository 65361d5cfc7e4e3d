"""The server's half of a session: what counts, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

from flwr_caesar.sync.protocol import device_id
from tests.sync.parties import Device, Server, law_holds, new_token


def test_an_answer_to_another_request_is_refused():
    server, device = Server(), Device(1)
    reply, frame = device.take(*server.ask([device])[1])
    verdict = server.hear(1, replace(reply, nonce=1), frame)
    assert "another request" in verdict.reason
    server.close()
    assert not server.model["w"].any()
    assert sum(server.session.refusals.values()) == 1


def test_replay_of_an_applied_upload_is_refused():
    server, device = Server(), Device(1)
    reply, frame = device.take(*server.ask([device])[1])
    server.hear(1, reply, frame)
    server.close()
    header, _ = server.ask([device])[1]
    again = replace(reply, nonce=header.nonce)
    assert "another history or version" in server.hear(1, again, frame).reason


def test_frame_of_another_lineage_is_refused():
    ours, theirs, device = Server(), Server(), Device(1)
    reply, _ = device.take(*ours.ask([device])[1])
    _, frame = Device(1).take(*theirs.ask([device])[1])
    assert "another history" in ours.hear(1, reply, frame).reason


def test_nobody_acts_for_a_device_without_its_token():
    server, device = Server(), Device(1)
    server.round(device)
    before = server.ledger.devices([device_id(device.state.token)])
    thief = Device(2)
    reply, frame = thief.take(*server.ask([thief])[2])
    known = (*device.state.settled, device.state.pending[0].upload_id)
    server.hear(2, replace(reply, token=new_token(), known=known), frame)
    server.close()
    assert server.ledger.devices([device_id(device.state.token)]) == before


def test_withdrawn_upload_is_returned():
    server, device = Server(), Device(1)
    server.round(device)
    server.hear(1, *device.take(*server.ask([device])[1]))
    server.session.withdraw(1, "no metrics")
    server.close()
    server.round(device)
    assert len(device.last.returned) == 1
    assert law_holds(server, device)


def test_a_clock_that_is_set_back_and_stays_back_stops_nobody():
    server, device = Server(), Device(1)
    server.round(device)
    server.now = -10_000
    for _ in range(3):
        before = server.session.head.incarnation
        server.restart()
        assert server.session.head.incarnation == before + 1
        assert server.round(device)[0].counts
        assert law_holds(server, device)


def test_a_clock_that_is_ahead_is_used():
    server = Server()
    server.now = 5_000
    server.restart()
    assert server.session.head.incarnation == 5_100
