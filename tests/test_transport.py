"""Frames and plans inside Flower messages: what goes in comes out, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.sync.protocol import STALE, DownloadHeader, UploadHeader
from flwr_caesar.sync.wire import sealed
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import (
    FRAME_STYPE,
    NOTE_KEY,
    PROTOCOL_VERSION,
    DeviceReport,
    Plan,
    arrays_to_record,
    exact_record,
    frame_to_record,
    is_frame,
    message_nbytes,
    note_of,
    plain_record,
    record_nbytes,
    record_to_arrays,
    record_to_frame,
    widened_record,
    with_note,
    without_note,
)
from flwr_caesar.transport.seconds import pack_seconds
from flwr_caesar.transport.short import pack_mapping

DOWN = DownloadHeader(1, (1, 2), 3, (4, bytes(8)))
UP = UploadHeader(nonce=3, token=bytes(16), status=STALE)


def noted(note: bytes) -> RecordDict:
    return with_note(RecordDict(), note)


def test_a_frame_is_one_array_that_nobody_averages_by_mistake() -> None:
    record = frame_to_record(b"CSAR bytes")
    assert is_frame(record)
    assert record_to_frame(record) == b"CSAR bytes"
    (array,) = record.values()
    assert (array.stype, array.shape) == (FRAME_STYPE, (10,))
    with pytest.raises(TypeError):
        array.numpy()


def test_plain_arrays_are_no_frame_and_say_what_is_missing() -> None:
    with pytest.raises(CodecError, match="add compression_mod"):
        record_to_frame(arrays_to_record({"frame": np.zeros(3)}))


def test_a_malformed_array_is_named() -> None:
    broken = ArrayRecord({"w": Array("float32", (3,), "numpy.ndarray", b"nothing")})
    with pytest.raises(CodecError, match="'w' cannot be read"):
        record_to_arrays(broken)


def test_bfloat16_comes_back_and_is_widened_for_flower() -> None:
    import ml_dtypes

    half = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    assert record_to_arrays(arrays_to_record({"w": half}))["w"].dtype == half.dtype
    wide = record_to_arrays(widened_record({"w": half}))["w"]
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, half.astype(np.float32))


def test_an_exact_record_is_a_frame_only_where_that_is_shorter() -> None:
    long = arrays_to_record({"w": np.zeros(1000, np.float32)})
    framed = exact_record(long)
    assert is_frame(framed)
    assert record_nbytes(framed) < record_nbytes(long)
    assert exact_record(framed) is framed
    for back in (plain_record(framed), plain_record(long)):
        np.testing.assert_array_equal(record_to_arrays(back)["w"], 0)
    objects = ArrayRecord({"w": Array("float32", (3,), "numpy.ndarray", b"nothing")})
    assert exact_record(objects) is objects


def test_bytes_of_a_message_are_arrays_and_our_note() -> None:
    note = Plan().note(DOWN)
    content = noted(note)
    assert message_nbytes(content) == len(note)
    content["arrays"] = frame_to_record(b"C" + bytes(range(99)))
    assert message_nbytes(content) == len(note) + 100
    content["config"] = ConfigRecord({"lr": 0.1})  # the user's own is not counted
    assert message_nbytes(content) == len(note) + 100


@pytest.mark.parametrize("frame", [b"", b"C" * 50, b"C" + bytes(range(99))])
@pytest.mark.parametrize("note", [b"", b"a note", bytes(60_000)])
def test_a_note_may_lead_a_frame(frame: bytes, note: bytes) -> None:
    record = frame_to_record(frame, note)
    assert record_to_frame(record) == frame
    assert note_of(RecordDict({"arrays": record})) == (note or None)


@pytest.mark.parametrize("data", [b"\1", b"\1\0\5abc", b"\3\0", b"\7abc"])
def test_what_is_before_a_frame_is_checked(data: bytes) -> None:
    record = ArrayRecord({"frame": Array("uint8", (len(data),), FRAME_STYPE, data)})
    with pytest.raises(CodecError):
        record_to_frame(record)
    with pytest.raises(CodecError):
        note_of(RecordDict({"arrays": record}))


def test_a_note_goes_into_a_config_that_is_there_and_out_again() -> None:
    content = RecordDict({"config": ConfigRecord({"lr": 0.1})})
    full = with_note(content, b"note")
    assert set(full) == {"config"}
    assert note_of(with_note(full, b"another")) == b"another"
    assert without_note(full) == content
    assert NOTE_KEY not in content["config"]


PLANS = [
    Plan(),
    Plan(
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
    ),
]


@pytest.mark.parametrize("plan", PLANS, ids=["defaults", "all"])
def test_a_plan_comes_back_with_its_header(plan: Plan) -> None:
    assert Plan.read(noted(plan.note(DOWN))) == (plan, DOWN)


def _plan(*, version: int = PROTOCOL_VERSION, bits: int = 0, **told: Any) -> bytes:
    return sealed(bytes([version, bits]) + DOWN.to_bytes() + pack_mapping(told))


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (_plan(version=1), "install the same flwr-caesar on both sides"),
        (_plan(bits=1 << 5), "malformed: flags"),
        (_plan(**{"max-residual-age": -1}), "max-residual-age"),
        (_plan(settings=[1]), "malformed: settings"),
        (_plan(upload="{"), "malformed: upload"),
        (_plan(colour="red"), "unknown fields"),
        (sealed(Plan().note(DOWN)[:9]), "truncated|malformed|ends"),
        (Plan().note(DOWN)[:-1], "checksum"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(note: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Plan.read(noted(note))


def test_a_message_without_our_note_is_none_of_ours() -> None:
    with pytest.raises(CodecError, match="has no 'csar' entry"):
        Plan.read(RecordDict())


def test_a_report_comes_back_with_its_header() -> None:
    report = DeviceReport(1.0, 2.0, 3.0, 4.0, (5, 6), {"lost": 0.5}, Telemetry.of({}))
    back, header = DeviceReport.read(noted(report.note(UP)))
    assert (back.labels, back.part, header) == ((5, 6), {"lost": 0.5}, UP)
    assert back.start == pytest.approx(4.0, rel=0.01)


def _report(seconds: bytes = pack_seconds(1, 2, 3, 4), **told: Any) -> bytes:
    return sealed(UP.to_bytes() + seconds + pack_mapping(told))


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (_report(labels=[1] * 5000), "no short list"),
        (_report(labels=[-1]), "no counts"),
        (_report(labels=[1.5]), "no counts"),
        (_report(part={"a": "x" * 5000}), "part"),
        (_report(part=[]), "part"),
        (_report(colour="red"), "unknown fields"),
        (sealed(UP.to_bytes() + bytes(3)), "truncated|ends"),
    ],
)
def test_a_report_out_of_bounds_is_refused(note: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        DeviceReport.read(noted(note))


@pytest.mark.parametrize("told", ["x" * 3000, {"seconds": "many"}, 7])
def test_no_reply_is_lost_for_a_sensor(told: Any) -> None:
    report, _ = DeviceReport.read(noted(_report(telemetry=told)))
    assert (report.train, report.telemetry) == (pytest.approx(1.0, rel=0.01), None)
