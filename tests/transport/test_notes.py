"""Where notes and frames are in a message, and what is refused there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.runner.inline import through_the_wire
from flwr_caesar.transport import (
    FRAME_STYPE,
    frame_to_record,
    note_of,
    record_to_frame,
    with_note,
    without_note,
)
from flwr_caesar.transport.seconds import MAX_SECONDS, pack_seconds, unpack_seconds
from flwr_caesar.transport.short import WORDS, lengthen, shorten

VECTORS = Path(__file__).parents[1] / "vectors"
FRAME = b"CSAR" + bytes(100)
LONG = b"CSAR" + bytes(range(256)) * 20
NOTE = b"a note"


def test_the_common_words_are_those_of_the_protocol() -> None:
    assert bytes.fromhex((VECTORS / "words.hex").read_text()) == WORDS


@given(st.binary(max_size=300))
def test_what_is_shortened_comes_back(data: bytes) -> None:
    assert lengthen(shorten(data), most=len(data)) == data
    for head in {1, len(data) // 2, len(data)}:
        assert lengthen(shorten(data, head=head), most=len(data)) == data


def test_dense_contents_of_a_frame_are_not_stretched() -> None:
    codec = get_codec({"id": "cast", "exact_below": 1})
    x = np.random.default_rng(0).normal(size=700).astype(np.float32)
    frame, _ = codec.encode({"w": x})
    (array,) = frame_to_record(frame).values()
    assert len(array.data) < 2 * len(x) + 80
    assert record_to_frame(ArrayRecord({"frame": array})) == frame


@given(st.binary(max_size=100))
def test_other_streams_are_refused_or_within_the_limit(data: bytes) -> None:
    with suppress(CodecError):
        assert len(lengthen(data, most=50)) <= 50


def test_a_stream_that_goes_on_is_refused() -> None:
    for damaged in (shorten(FRAME)[:-1], shorten(FRAME) + b"x"):
        with pytest.raises(CodecError, match=r"end where it should|damaged"):
            lengthen(damaged, most=1 << 10)
    with pytest.raises(CodecError, match="more than 1000 bytes"):
        lengthen(shorten(bytes(1 << 24)), most=1000)


@pytest.mark.parametrize("frame", [FRAME, LONG])
@pytest.mark.parametrize("note", [b"", NOTE])
def test_a_frame_comes_back_with_and_without_a_note(frame: bytes, note: bytes) -> None:
    record = frame_to_record(frame, note)
    assert record_to_frame(record) == frame
    content = through_the_wire(RecordDict({"arrays": record}))
    assert record_to_frame(content["arrays"]) == frame
    assert note_of(content) == (note or None)


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"config": ConfigRecord({"lr": 0.1})},
        {"csar": ConfigRecord({"lr": 0.1})},
        {"csar": ConfigRecord({"lr": 0.1}), "config": ConfigRecord({"csar": 3})},
        {"arrays": frame_to_record(FRAME)},
    ],
)
def test_a_note_is_put_in_and_taken_out(records: dict) -> None:
    content = RecordDict(records)
    for note in (NOTE, b"another"):
        content = through_the_wire(with_note(content, note))
        assert note_of(content) == note
    left = without_note(content)
    if "csar" not in records:
        assert dict(left) == records
        assert note_of(left) is None
    led = with_note(
        RecordDict({"arrays": frame_to_record(FRAME)}), NOTE, leads="arrays"
    )
    assert not led.config_records
    assert note_of(led) == NOTE


@pytest.mark.parametrize("data", [b"\0", b"\4", b"\1", b"\1\xff\xff", b"\2\xff", b"x"])
def test_odd_arrays_are_refused(data: bytes) -> None:
    record = ArrayRecord({"frame": Array("uint8", (len(data),), FRAME_STYPE, data)})
    with pytest.raises(CodecError):
        record_to_frame(record)


@given(st.lists(st.floats(0, MAX_SECONDS), min_size=4, max_size=4))
def test_seconds_come_back_to_a_third_of_a_percent(seconds: list[float]) -> None:
    data = pack_seconds(*seconds)
    assert len(data) == 6
    assert unpack_seconds(data) == pytest.approx(seconds, rel=0.0031, abs=1.3e-4)


def test_longer_claims_are_refused() -> None:
    with pytest.raises(CodecError, match="seconds"):
        unpack_seconds(pack_seconds(0, 0, 0, 2e7))
