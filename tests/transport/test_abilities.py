"""What a device says it can comes back, or is refused; and says what is lacking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.sync.protocol import EVALUATED, UploadHeader
from flwr_caesar.transport import Abilities, DeviceReport, Plan, with_note

PHONE = Abilities(frozenset({"dense", "topk"}), frozenset({"recovery"}))
HEADER = UploadHeader(nonce=3, token=bytes(16), status=EVALUATED)
FRAME = get_codec("topk").encode({"w": np.ones(2000, np.float32)})[0]


@pytest.mark.parametrize("can", [PHONE, Abilities(frozenset({"dense"})), None])
def test_it_comes_back_with_a_report(can: Abilities | None) -> None:
    note = DeviceReport(can=can).note(HEADER)
    found, _ = DeviceReport.read(with_note(RecordDict(), note))
    assert found.can == can
    # A device that says nothing of it writes what it always wrote.
    assert (note == DeviceReport().note(HEADER)) == (can is None)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "dense",
        {},
        {"codecs": ["topk"]},
        {"codecs": "dense"},
        {"codecs": {"dense": 1}},
        {"codecs": ["dense", "dense"]},
        {"codecs": ["dense", 5]},
        {"codecs": ["dense", ""]},
        {"codecs": ["dense", "a\nb"]},
        {"codecs": ["dense", "größe"]},
        {"codecs": ["dense", "x" * 65]},
        {"codecs": ["dense", *map(str, range(64))]},
        {"codecs": ["dense"], "parts": ["x" * 60 + str(n) for n in range(10, 60)]},
        {"codecs": ["dense"], "bribe": []},
    ],
    ids=lambda found: repr(found)[:40],
)
def test_what_is_no_list_of_abilities_is_refused(found: Any) -> None:
    with pytest.raises(CodecError, match=r"abilities|codec 'dense'"):
        Abilities.of(found)


@pytest.mark.parametrize(
    ("plan", "frame", "words"),
    [
        (Plan(), None, ""),
        (Plan(), FRAME, ""),
        (Plan(), b"no frame at all", ""),
        (Plan(upload={"id": "dense"}, part="recovery"), FRAME, ""),
        (Plan(upload={"id": "qsgd"}), None, "no codec 'qsgd'"),
        (Plan(upload={"id": 5}), None, "no codec 5"),
        (
            Plan(part="bound_check", upload={"id": "qsgd"}),
            None,
            "no part 'bound_check'",
        ),
        (Plan(upload={"id": "ä" * 99}), None, "no codec '\\xe4\\xe4"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_it_tells_what_a_request_needs_beyond_it(
    plan: Plan, frame: bytes | None, words: str
) -> None:
    lacking = PHONE.lacking(plan, frame)
    assert lacking.startswith(words)
    assert bool(lacking) == bool(words)
    assert len(lacking) <= 70
    if frame == FRAME:
        modest = Abilities(frozenset({"dense"}), frozenset({"recovery"}))
        assert modest.lacking(plan, frame) == "no codec 'topk'"
