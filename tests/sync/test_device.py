"""The device's half of a session, without a server: what a state becomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.sync.device import (
    commit_update,
    decline,
    evaluated,
    is_answered,
    receive,
)
from flwr_caesar.sync.protocol import (
    DECLINED,
    EVALUATED,
    NEED_WHOLE,
    STALE,
    UPDATE,
    DownloadHeader,
    model_digest,
)
from flwr_caesar.sync.state import DeviceState

MODEL = {"w": np.zeros(8, np.float32)}
CODEC = get_codec({"id": "topk", "density": 0.25, "exact_below": 1})
HEADER = DownloadHeader(7, (1, 1), 11, (0, model_digest(MODEL)))
WHOLE = get_codec("dense").encode(MODEL)[0]
UPDATE_OF_ALL = {"w": np.arange(1.0, 9.0, dtype=np.float32)}


def token() -> bytes:
    return b"t" * 16


def taken() -> DeviceState:
    got = receive(None, HEADER, WHOLE, train=True, new_token=token)
    assert got.reply is None
    return got.state


def test_a_newcomer_makes_its_token_and_holds_the_model() -> None:
    state = taken()
    assert (state.token, state.lineage, state.version) == (token(), 7, 0)
    np.testing.assert_array_equal(state.model["w"], 0)


def test_an_update_keeps_what_was_not_sent_and_what_is_in_doubt() -> None:
    done = commit_update(
        taken(), HEADER, UPDATE_OF_ALL, codec=CODEC, new_id=lambda: 5, want_sent=True
    )
    assert (done.reply.status, done.reply.upload_id) == (UPDATE, 5)
    np.testing.assert_array_equal(done.sent["w"], [0, 0, 0, 0, 0, 0, 7, 8])
    left = done.state.residual["w"]
    np.testing.assert_array_equal(left, [1, 2, 3, 4, 5, 6, 0, 0])
    assert [p.upload_id for p in done.state.pending] == [5]


def test_without_error_feedback_nothing_is_kept() -> None:
    done = commit_update(
        taken(),
        HEADER,
        UPDATE_OF_ALL,
        codec=CODEC,
        new_id=lambda: 5,
        error_feedback=False,
    )
    assert not done.state.residual


def test_a_request_is_answered_once() -> None:
    state = taken()
    assert not is_answered(None, HEADER)
    assert not is_answered(state, HEADER)
    done = commit_update(state, HEADER, UPDATE_OF_ALL, codec=CODEC, new_id=lambda: 5)
    assert is_answered(done.state, HEADER)
    again = receive(done.state, HEADER, WHOLE, train=True, new_token=token)
    assert again.frame == done.frame
    assert again.reply is not None
    assert again.reply.upload_id == 5
    older = replace(HEADER, order=(1, 0))
    assert is_answered(done.state, older)
    stale = receive(done.state, older, WHOLE, train=True, new_token=token)
    assert stale.reply is not None
    assert stale.reply.status == STALE


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("frame", [None, b"", WHOLE[:-1], b"x" * 200])
def test_what_is_no_model_is_asked_for_whole(frame: bytes | None, train: bool) -> None:
    got = receive(
        taken(), replace(HEADER, order=(1, 2)), frame, train=train, new_token=token
    )
    assert got.model is None
    assert got.reply is not None
    assert got.reply.status == NEED_WHOLE
    assert got.state.version == 0  # the model it had is still there


def test_a_model_of_another_digest_is_not_taken() -> None:
    other = replace(HEADER, target=(1, bytes(8)), order=(1, 2))
    got = receive(taken(), other, WHOLE, train=True, new_token=token)
    assert got.reply is not None
    assert got.reply.status == NEED_WHOLE
    near = receive(taken(), other, WHOLE, train=True, new_token=token, exact=False)
    assert near.state.version == 1


def test_who_declines_changes_nothing() -> None:
    done = commit_update(taken(), HEADER, UPDATE_OF_ALL, codec=CODEC, new_id=lambda: 5)
    got = decline(done.state, replace(HEADER, order=(1, 2)), token)
    assert got.state is done.state
    assert got.reply is not None
    assert (got.reply.status, got.model) == (DECLINED, None)
    assert decline(None, HEADER, token).state.token == token()


def test_an_evaluation_names_the_request_that_it_is_of() -> None:
    reply = evaluated(taken(), HEADER)
    assert (reply.status, reply.nonce) == (EVALUATED, HEADER.nonce)


@pytest.mark.parametrize("changed", [{"w": UPDATE_OF_ALL["w"]}, {}])
def test_what_changed_since_an_older_model_is_taken_if_it_makes_the_target(
    changed: dict[str, np.ndarray],
) -> None:
    """The server missed the last reply, and builds on an older model than is held."""
    state = taken()
    model = {**state.model, **changed}
    target = (2, model_digest(model))
    later = replace(HEADER, order=(1, 2), base=(-5, bytes(8)), target=target)
    frame = get_codec("dense").encode(changed)[0]
    got = receive(state, later, frame, train=True, new_token=token)
    assert got.reply is None
    assert got.state.digest == target[1]
    other = replace(later, target=(2, bytes(8)))
    got = receive(state, other, frame, train=True, new_token=token)
    assert got.reply is not None
    assert got.reply.status == NEED_WHOLE


def test_an_update_that_cannot_be_encoded_changes_nothing() -> None:
    state = taken()
    update = {"w": np.full(8, np.nan, np.float32)}
    with pytest.raises(CodecError, match="'w'"):
        commit_update(state, HEADER, update, codec=CODEC, new_id=lambda: 5)
    assert not state.pending
