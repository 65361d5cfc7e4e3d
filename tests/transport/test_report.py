"""A report comes back as it was sent; claims out of bounds cost their own reply."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.sync.protocol import STALE, UploadHeader
from flwr_caesar.sync.wire import sealed
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import DeviceReport, with_note
from flwr_caesar.transport.seconds import pack_seconds
from flwr_caesar.transport.short import pack_mapping

HEADER = UploadHeader(nonce=3, token=bytes(16), status=STALE, held=(1, bytes(8)))


def content(**told: Any) -> RecordDict:
    head = HEADER.to_bytes() + pack_seconds(1.0, 0.0, 0.0, 0.0)
    return with_note(RecordDict(), sealed(head + pack_mapping(told)))


def test_a_report_comes_back_with_its_header() -> None:
    telemetry = Telemetry(source="jtop", watts_mean=5.0)
    report = DeviceReport(1.0, 2.0, 4.0, 8.0, (5, 6), {"lost": 0.5}, telemetry)
    found, header = DeviceReport.read(with_note(RecordDict(), report.note(HEADER)))
    assert header == HEADER
    assert (found.labels, found.part) == ((5, 6), {"lost": 0.5})
    assert found.telemetry == telemetry
    seconds = [found.train, found.encode, found.decode, found.start]
    assert seconds == pytest.approx([1.0, 2.0, 4.0, 8.0], rel=0.004)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"labels": [1] * 5000}, "no short list"),
        ({"labels": 3}, "no short list"),
        ({"labels": [-1]}, "no counts"),
        ({"labels": [1.5]}, "no counts"),
        ({"labels": [True]}, "no counts"),
        ({"labels": [float("nan")]}, "no counts"),
        ({"part": {"a": "x" * 5000}}, "part"),
        ({"part": []}, "part"),
        ({"bribe": 1}, "unknown fields"),
    ],
)
def test_a_report_out_of_bounds_is_refused(told: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        DeviceReport.read(content(**told))


@pytest.mark.parametrize(
    "told", ["x" * 3000, {"seconds": "many"}, {"joules": float("nan")}, 7]
)
def test_no_reply_is_lost_for_a_sensor(told: Any) -> None:
    report, _ = DeviceReport.read(content(telemetry=told))
    assert report.train == pytest.approx(1.0, rel=0.004)
    assert report.telemetry is None
