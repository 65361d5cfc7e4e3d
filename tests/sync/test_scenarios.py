"""One thing goes wrong at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flwr_caesar.codec import CodecError
from flwr_caesar.sync.device import commit_update, receive
from flwr_caesar.sync.forget import forget, forget_old
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.sync.ledger_tables import NOT_KNOWN
from flwr_caesar.sync.protocol import MAX_PENDING, device_id
from tests.sync.parties import CODEC, Device, Server, law_holds, new_id, new_token


def test_newcomer_gets_the_whole_model_and_counts_at_once():
    server, device = Server(), Device(1)
    header, frame = server.ask([device])[1]
    assert header.base is None
    assert header.device == ""
    assert server.hear(1, *device.take(header, frame)).counts


def test_uploads_are_acknowledged_and_the_residual_goes_on():
    server, device = Server(), Device(1)
    for _ in range(25):
        assert [v.counts for v in server.round(device)] == [True]
        assert law_holds(server, device)
    assert len(device.state.pending) == 1
    assert len(device.last.applied) == 1


def test_a_device_that_holds_the_model_is_sent_none():
    server, device = Server(), Device(1)
    server.round(device)
    server.round(device, train=False)
    header, frame = server.ask([device], train=False)[1]
    assert header.base == header.target
    assert frame is None
    assert len(header.to_bytes()) < 100
    reply, _ = device.take(header, frame, train=False)
    assert server.hear(1, reply, None).counts
    np.testing.assert_array_equal(device.last.model["w"], server.model["w"])


def test_lost_upload_goes_back_into_the_residual():
    server, device = Server(), Device(1)
    server.round(device)
    sent = device.state.pending[0].upload_id
    server.round(device, lose=[device])
    lost = device.state.pending[-1].upload_id
    server.round(device)
    assert device.last.returned == (lost,)
    assert device.state.settled == (sent,)
    assert law_holds(server, device)


def test_duplicate_download_is_answered_with_the_same_upload():
    server, device = Server(), Device(1)
    request = server.ask([device])[1]
    first = device.take(*request)
    state = device.state
    assert device.take(*request) == first
    assert device.state is state


def test_duplicate_and_late_uploads_do_not_count():
    server, device = Server(), Device(1)
    reply = device.take(*server.ask([device])[1])
    assert server.hear(1, *reply).counts
    assert "no request" in server.hear(1, *reply).reason
    server.close()
    assert "no request" in server.hear(1, *reply).reason
    server.ask([device])
    assert "another request" in server.hear(1, *reply).reason


def test_older_request_is_stale():
    server, device = Server(), Device(1)
    old = server.ask([device])[1]
    device.take(*server.ask([device])[1])
    state = device.state
    reply, frame = device.take(*old)
    assert (reply.status, frame) == ("stale", None)
    assert device.state is state


def test_deleted_folder_needs_the_whole_model_once():
    server, device = Server(), Device(1)
    server.round(device)
    server.round(device, train=False)
    device.state = None
    assert "whole" in server.round(device)[0].reason
    assert server.round(device)[0].counts


def test_device_back_after_months_is_settled():
    server, device, other = Server(), Device(1), Device(2)
    server.round(device, other)
    for _ in range(40):
        server.round(other)
    assert server.round(device, other)[0].counts
    assert len(device.last.applied) == 1
    assert law_holds(server, device, other)


def test_of_two_copies_one_gives_up():
    server, device, copy = Server(), Device(1), Device(2)
    server.round(device)
    copy.state = device.state
    reasons = [v.reason for v in server.round(device, copy)]
    assert reasons == ["", "the device has sent an update from another node"]
    token = device.state.token
    assert [v.counts for v in server.round(device, copy)] == [True, True]
    assert device.state.token == token
    assert copy.state.token != token
    assert copy.last.forfeited["w"].any()
    assert copy.last.notes


def test_copy_that_comes_later_is_refused_then_gives_up():
    server, device, copy = Server(), Device(1), Device(2)
    server.round(device)
    copy.state = device.state
    server.round(device)
    assert "another copy" in server.round(copy)[0].reason
    assert server.round(copy)[0].counts
    assert server.round(device)[0].counts
    assert device.last.forfeited == {}


def test_old_backup_of_a_device_gives_up():
    server, device = Server(), Device(1)
    server.round(device)
    old = device.state
    server.round(device)
    device.state = old
    assert server.round(device)[0].counts
    assert device.state.token != old.token
    assert device.last.forfeited["w"].any()


def test_server_restored_from_a_backup_keeps_the_residual():
    server, device = Server(), Device(1)
    server.round(device)
    old = server.ledger.copy()
    server.round(device)
    server.round(device)
    first, second, third = *device.state.settled, device.state.pending[0].upload_id
    assert second != third
    server.restart(old)
    assert server.round(device)[0].counts
    assert device.last.forfeited == {}
    assert device.last.returned == (third,)
    assert any("earlier" in note for note in device.last.notes)
    assert server.round(device)[0].counts
    assert first in device.state.settled


def test_crash_before_the_commit_applies_nothing():
    server, device = Server(), Device(1)
    server.round(device)
    server.hear(1, *device.take(*server.ask([device])[1]))
    server.restart()
    server.round(device)
    assert len(device.last.returned) == 1
    assert law_holds(server, device)


def test_new_node_id_is_the_same_device():
    server, device = Server(), Device(1)
    server.round(device)
    token = device.state.token
    device.node_id = 5
    assert server.round(device)[0].counts
    assert len(device.state.pending) == 2
    server.round(device)
    assert len(device.state.pending) == 1
    assert device.state.token == token
    assert law_holds(server, device)


def test_too_many_unsettled_uploads_wait_for_the_server():
    server, device = Server(), Device(1)
    for node_id in range(1, MAX_PENDING + 1):
        device.node_id = node_id
        server.round(device)
    device.node_id = 99
    assert "waits" in server.round(device)[0].reason
    assert server.round(device)[0].counts
    assert len(device.state.pending) == 1
    assert law_holds(server, device)


def test_damaged_model_is_asked_for_again():
    server, device = Server(), Device(1)
    header, frame = server.ask([device])[1]
    reply, _ = device.take(header, frame[:-1] + b"\0")
    assert reply.status == "need-whole"
    reply, _ = device.take(replace(header, target=(0, bytes(8))), frame)
    assert reply.status == "need-whole"


def test_state_of_another_lineage_is_a_mistake_of_the_caller():
    server, device = Server(), Device(1)
    request = server.ask([device])[1]
    device.take(*request)
    device.state = replace(device.state, lineage=new_id())
    with pytest.raises(ValueError, match="lineage"):
        device.take(*request)


def test_what_is_too_old_is_given_up_whole_and_only_then():
    server, device, other = Server(), Device(1), Device(2)
    server.round(device, other)
    server.round(device, other, lose=[device])
    for _ in range(5):
        server.round(other)
    header, _ = server.ask([device])[1]
    state = device.state
    assert len(state.pending) == 1
    for age in (0, 6):
        assert forget_old(state, header, age) == (state, {})
    kept, given_up = forget_old(state, header, 5)
    assert kept == replace(state, residual={}, pending=())
    np.testing.assert_array_equal(given_up["w"], device.residual + device.waiting())
    # What the server applied stands, and the request of a server that was restored
    # since tells nothing of age.
    named = replace(header, applied=(*header.applied, state.pending[0].upload_id))
    kept, given_up = forget_old(state, named, 5)
    assert kept == replace(state, residual={})
    np.testing.assert_array_equal(given_up["w"], device.residual)
    late = replace(header, order=(0, header.order[1]))
    assert forget_old(state, late, 1) == (state, {})


def test_nothing_is_given_up_for_a_request_that_was_answered_or_is_older():
    """A duplicate of a request to clip must not touch what its answer left."""
    server, device = Server(), Device(1)
    server.round(device)
    older, _ = server.ask([device])[1]
    request = server.ask([device])[1]
    device.take(*request)
    state = device.state
    assert state.residual
    for header in (older, request[0]):
        assert forget(state, header) == (state, {})
    newer, _ = server.ask([device])[1]
    kept, given_up = forget(state, newer)
    assert not kept.residual
    assert given_up["w"].any()


def test_what_is_left_of_other_tensors_is_refused_and_kept():
    server, device = Server(), Device(1)
    header, frame = server.ask([device])[1]
    got = receive(device.state, header, frame, train=True, new_token=new_token)
    state = replace(got.state, residual={"w": np.ones(7)})
    with pytest.raises(CodecError, match=r"has shape \(8,\).*\(7,\)"):
        commit_update(state, header, {"w": np.ones(8)}, codec=CODEC, new_id=new_id)
    # What would broadcast is refused as well.
    state = replace(got.state, residual={"w": np.ones(1)})
    with pytest.raises(CodecError, match="shape"):
        commit_update(state, header, {"w": np.ones(8)}, codec=CODEC, new_id=new_id)


def test_a_device_whose_row_the_ledger_lost_starts_anew_and_nothing_counts_twice():
    server, device = Server(), Device(1)
    server.round(device)
    server.round(device)
    token, before = device.state.token, device.computed
    applied = server.model["w"]
    lost = DeviceRow(device_id(token), applied=(NOT_KNOWN,))
    server.ledger.commit(server.ledger.head(), [lost])
    for _ in range(3):
        assert server.round(device)[0].counts
    assert device.state.token != token
    news = server.model["w"] - applied + device.residual
    assert np.array_equal(news, device.computed - before)


@pytest.mark.parametrize("want_sent", [False, True])
@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_update_that_may_be_overwritten_gives_the_same(
    want_sent, error_feedback, dtype
):
    server, device = Server(), Device(1)
    server.round(device)
    header, frame = server.ask([device])[1]
    got = receive(device.state, header, frame, train=True, new_token=new_token)
    left = {"w": np.arange(8.0), "scalar": np.float64(0.5)}
    state = replace(got.state, residual=left)
    update = {"w": np.arange(8, 0, -1, dtype), "scalar": np.asarray(1, dtype)}
    update["count"] = np.arange(3)
    keep = {name: array.copy() for name, array in update.items()}

    def commit(arrays, **options):
        return commit_update(
            state,
            header,
            arrays,
            codec=CODEC,
            new_id=lambda: 5,
            error_feedback=error_feedback,
            want_sent=want_sent,
            **options,
        )

    plain = commit(update)
    for name, array in update.items():
        np.testing.assert_array_equal(array, keep[name])
    thrifty = commit(update, overwrite=True)
    assert thrifty.frame == plain.frame
    for name, array in plain.state.residual.items():
        np.testing.assert_array_equal(thrifty.state.residual[name], array)
    assert thrifty.state.residual.keys() == plain.state.residual.keys()
    assert thrifty.sent.keys() == (plain.sent.keys() if want_sent else set())
    np.testing.assert_array_equal(left["w"], np.arange(8.0))
