"""What becomes of an upload, by what the next request says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.sync.protocol import DownloadHeader, device_id
from flwr_caesar.sync.settle import settle
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState, Pending

CODEC = get_codec({"id": "topk", "density": 1.0, "exact_below": 1})
MODEL = {"w": np.zeros(4, np.float32)}
TOKEN = bytes(16)


def pending(upload_id: int, value: float, **values: str) -> Pending:
    update = {"w": np.full(4, value, np.float32)}
    frame, _ = CODEC.encode(update, CodecState(Layout.of(update)))
    return Pending(upload_id, (1, upload_id), frame, **values)


STATE = DeviceState(
    TOKEN,
    1,
    model=MODEL,
    version=3,
    order=(1, 9),
    residual={"w": np.ones(4, np.float32)},
    pending=(pending(1, 10), pending(2, 100)),
    settled=(7,),
)


def header(*applied: int, token: bytes = TOKEN) -> DownloadHeader:
    return DownloadHeader(
        1, (1, 10), 1, (3, bytes(8)), device=device_id(token), applied=applied
    )


def new_token() -> bytes:
    return b"n" * 16


@pytest.mark.parametrize(
    ("applied", "residual", "returned"),
    [
        ((7, 1, 2), 1.0, ()),
        ((7, 1), 101.0, (2,)),
        ((7, 2), 11.0, (1,)),
        ((7,), 111.0, (1, 2)),
        ((), 111.0, (1, 2)),
    ],
)
def test_what_was_not_applied_goes_back(applied, residual, returned) -> None:
    judged = settle(STATE, header(*applied), new_token)
    np.testing.assert_array_equal(judged.state.residual["w"], residual)
    assert judged.returned == returned
    assert set(judged.applied) == {1, 2} - set(returned)
    assert judged.state.pending == ()
    assert judged.state.settled == (7, *judged.applied)
    assert judged.state.token == TOKEN


def test_the_state_given_stays_what_it_was() -> None:
    settle(STATE, header(7), new_token)
    np.testing.assert_array_equal(STATE.residual["w"], 1)


def test_of_another_device_nothing_is_learned() -> None:
    assert settle(STATE, header(7, token=b"o" * 16), new_token).state is STATE


def test_a_model_never_goes_back() -> None:
    state = replace(STATE, pending=(pending(1, 10, payload=MODEL_PAYLOAD),))
    judged = settle(state, header(7), new_token)
    assert judged.returned == (1,)
    np.testing.assert_array_equal(judged.state.residual["w"], 1)


def test_a_copy_that_was_overtaken_is_a_new_device_and_owes_nothing() -> None:
    """The other copy has the residual and the upload that was not applied."""
    judged = settle(STATE, header(7, 1, 8), new_token)
    assert judged.state.token == new_token()
    assert (judged.state.residual, judged.state.pending) == ({}, ())
    assert judged.applied == (1,)
    np.testing.assert_array_equal(judged.forfeited["w"], 101)


def test_an_upload_that_cannot_be_read_is_given_up_alone() -> None:
    damaged = replace(STATE.pending[0], frame=b"x" * 80)
    state = replace(STATE, pending=(damaged, STATE.pending[1]))
    judged = settle(state, header(7), new_token)
    np.testing.assert_array_equal(judged.state.residual["w"], 101)
    assert any("cannot be read" in note for note in judged.notes)
