"""A plan comes back as it was sent, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.wire import sealed
from flwr_caesar.transport import PROTOCOL_VERSION, Plan, with_note
from flwr_caesar.transport.short import pack_mapping, shorten

HEADER = DownloadHeader(1, (1, 2), 3, (4, bytes(8)))
FULL = Plan(
    record="weights",
    upload=get_codec("topk").config,
    error_feedback=True,
    max_residual_age=5,
    payload="model",
    exact=False,
    call_app=False,
    part="fedcomloc",
    settings={"lr": 0.1},
    start={"seed": 1},
    ask_labels=True,
)


@pytest.mark.parametrize("plan", [Plan(), FULL], ids=["defaults", "all"])
def test_a_plan_comes_back_with_its_header(plan: Plan) -> None:
    content = with_note(RecordDict(), plan.note(HEADER))
    assert Plan.read(content) == (plan, HEADER)


def content(
    *, version: int = PROTOCOL_VERSION, flags: int = 0, **told: Any
) -> RecordDict:
    named = {key.replace("_", "-"): value for key, value in told.items()}
    head = bytes([version, flags]) + HEADER.to_bytes()
    return with_note(RecordDict(), sealed(head + pack_mapping(named)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": PROTOCOL_VERSION + 1}, "same flwr-caesar on both sides"),
        ({"flags": 255}, "flags"),
        ({"record": 7}, "malformed: record"),
        ({"max_residual_age": -1}, "max-residual-age"),
        ({"max_residual_age": True}, "max-residual-age"),
        ({"settings": [1]}, "malformed: settings"),
        ({"bribe": 1}, "unknown fields"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(values: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Plan.read(content(**values))


@pytest.mark.parametrize(
    "text",
    [
        b'{"record":"a","record":"b"}',
        b'{"upload":{"id":"dense","id":"topk"}}',
        '{"record":"a"}'.encode("utf-16-le"),
        b'\xef\xbb\xbf{"record":"a"}',
        b'{"record":"\xed\xa0\x80"}',
        b'{"settings":{"p":NaN}}',
        b'{"settings":{"p":1e400}}',
        b'{"settings":' + b'{"a":' * 20_000 + b"0" + b"}" * 20_001,
        b"[]",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_plan_is_strict_json(text: bytes) -> None:
    head = bytes([PROTOCOL_VERSION, 0]) + HEADER.to_bytes()
    note = sealed(head + shorten(text))
    with pytest.raises(CodecError, match="record is malformed"):
        Plan.read(with_note(RecordDict(), note))


def test_a_message_without_our_note_is_none_of_ours() -> None:
    with pytest.raises(CodecError, match="no 'csar' entry"):
        Plan.read(RecordDict())
