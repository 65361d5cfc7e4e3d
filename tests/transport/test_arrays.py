"""Arrays as Flower's records, and records as exact frames."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.transport import (
    FRAME_STYPE,
    arrays_to_record,
    exact_record,
    frame_to_record,
    is_frame,
    message_nbytes,
    plain_record,
    record_nbytes,
    record_to_arrays,
    record_to_frame,
    widened_record,
    with_note,
)

MALFORMED = ArrayRecord({"w": Array("float32", (3,), "numpy.ndarray", b"nothing")})


def test_a_frame_is_one_array_that_nobody_averages_by_mistake() -> None:
    record = frame_to_record(b"some bytes")
    assert is_frame(record)
    (array,) = record.values()
    assert array.stype == FRAME_STYPE
    with pytest.raises(TypeError):
        array.numpy()


def test_plain_arrays_are_no_frame_and_say_what_is_missing() -> None:
    with pytest.raises(CodecError, match="add compression_mod"):
        record_to_frame(arrays_to_record({"frame": np.zeros(3)}))


def test_a_malformed_array_is_named() -> None:
    with pytest.raises(CodecError, match="'w' cannot be read"):
        record_to_arrays(MALFORMED)


def test_bfloat16_comes_back_and_is_widened_for_flower() -> None:
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
    assert exact_record(MALFORMED) is MALFORMED


def test_bytes_of_a_message_are_arrays_and_our_note() -> None:
    content = with_note(RecordDict(), b"n" * 50)
    ours = message_nbytes(content)
    assert ours >= 50
    content["config"] = ConfigRecord({"lr": 0.1})  # the user's own is not counted
    content["arrays"] = arrays_to_record({"w": np.zeros(10)})
    assert message_nbytes(content) == ours + record_nbytes(content["arrays"])
