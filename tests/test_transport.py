"""Frames and plans inside Flower messages: what goes in comes out, or is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.sync.protocol import STALE, DownloadHeader, UploadHeader
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import (
    FRAME_STYPE,
    RECORD_KEY,
    DeviceReport,
    Plan,
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
)

DOWN = DownloadHeader(1, (1, 2), 3, (4, bytes(8)))
UP = UploadHeader(
    lineage=1, order=(1, 2), nonce=3, token=bytes(16), status=STALE, held=None
)


def changed(record: ConfigRecord, **values: Any) -> RecordDict:
    return RecordDict({RECORD_KEY: ConfigRecord({**dict(record.items()), **values})})


def test_a_frame_is_one_array_that_nobody_averages_by_mistake() -> None:
    record = frame_to_record(b"some bytes")
    assert is_frame(record)
    assert record_to_frame(record) == b"some bytes"
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


def test_bytes_of_a_message_are_arrays_and_our_record() -> None:
    content = changed(Plan().to_record(DOWN))
    ours = message_nbytes(content)
    assert ours == len(content[RECORD_KEY].deflate())
    content["arrays"] = frame_to_record(bytes(100))
    assert message_nbytes(content) == ours + 100
    content["config"] = ConfigRecord({"lr": 0.1})  # the user's own is not counted
    assert message_nbytes(content) == ours + 100


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
    content = changed(plan.to_record(DOWN))
    assert Plan.from_content(content) == plan
    assert DownloadHeader.from_dict(content[RECORD_KEY]) == DOWN


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"protocol": 1}, "install the same flwr-caesar on both sides"),
        ({"exact": 1}, "malformed: exact"),
        ({"max-residual-age": -1}, "max-residual-age"),
        ({"payload": "gradient"}, "asks for 'gradient'"),
        ({"settings": "[1]"}, "settings is no mapping"),
        ({"upload": "{"}, "upload"),
        ({"start": "[" * 9999}, "start"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(values: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Plan.from_content(changed(PLANS[1].to_record(DOWN), **values))


def test_a_message_without_our_record_is_none_of_ours() -> None:
    with pytest.raises(CodecError, match="no 'flwr-caesar' record"):
        Plan.from_content(RecordDict())


def test_a_report_comes_back_with_its_header() -> None:
    telemetry = Telemetry.of({})
    report = DeviceReport(1.0, 2.0, 3.0, 4.0, (5, 6), {"lost": 0.5}, telemetry)
    content = changed(report.to_record(UP))
    assert DeviceReport.from_content(content).labels == (5, 6)
    assert DeviceReport.from_content(content).part == {"lost": 0.5}
    assert DeviceReport.from_content(content).start == 4.0
    assert UploadHeader.from_dict(content[RECORD_KEY]) == UP


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seconds": [1.0, 2.0, 3.0]}, "does not report its seconds"),
        ({"seconds": [1.0, 2.0, 3.0, float("nan")]}, "nan seconds"),
        ({"seconds": [1.0, 2.0, 3.0, -1.0]}, "-1.0 seconds"),
        ({"labels": [1] * 5000}, "no short list"),
        ({"labels": [-1]}, "no counts"),
        ({"labels": [1.5]}, "no counts"),
        ({"part": json.dumps({"a": "x" * 5000})}, "part"),
        ({"part": "[]"}, "part is no mapping"),
    ],
)
def test_a_report_out_of_bounds_is_refused(values: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        DeviceReport.from_content(changed(DeviceReport().to_record(UP), **values))


@pytest.mark.parametrize("text", ["{", "x" * 3000, '{"seconds": "many"}', 7])
def test_no_reply_is_lost_for_a_sensor(text: Any) -> None:
    content = changed(DeviceReport(train=1.0).to_record(UP), telemetry=text)
    report = DeviceReport.from_content(content)
    assert (report.train, report.telemetry) == (1.0, None)
