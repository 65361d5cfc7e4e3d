"""One message through the mod: what the app sees, and what leaves the device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flwr_caesar.clients import CompressionMod, compression_mod
from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec
from flwr_caesar.flower import act_in_run, readdress
from flwr_caesar.sync.protocol import (
    EVALUATED,
    NEED_WHOLE,
    UPDATE,
    DownloadHeader,
    UploadHeader,
    model_digest,
)
from flwr_caesar.transport import (
    DeviceReport,
    Plan,
    arrays_to_record,
    frame_to_record,
    is_frame,
    record_to_arrays,
    record_to_frame,
    with_note,
)

MODEL = {"w": np.arange(8, dtype=np.float32), "n": np.array(2, np.int64)}
TOPK = {"id": "topk", "density": 0.25, "exact_below": 1}
TRAIN = Plan(upload=TOPK, error_feedback=True)
LINEAGE = 5

App = Callable[[Message, Context], Message]


def context() -> Context:
    config: Any = {"state-dir": "context"}
    return Context(
        run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={}
    )


def request(
    plan: Plan, order: int = 1, *, held: bool = False, damage: bytes = b""
) -> Message:
    target = (0, model_digest(MODEL))
    header = DownloadHeader(
        LINEAGE, (1, order), order, target, target if held else None
    )
    content = RecordDict({"config": ConfigRecord({"lr": 0.1})})
    if not held:
        frame = damage or get_codec("dense").encode(MODEL)[0]
        content["arrays"] = frame_to_record(frame)
    return message(with_note(content, plan.note(header)))


def message(content: RecordDict) -> Message:
    act_in_run(1)
    found = Message(content, dst_node_id=1, message_type="train")
    readdress(found, message_id="m")
    return found


def app(step: float = 1.0, seen: list[RecordDict] | None = None) -> App:
    """Add `step` times 1, 2, … to the weights; note what it is given."""

    def work(msg: Message, _: Context) -> Message:
        if seen is not None:
            seen.append(RecordDict(dict(msg.content.items())))
        arrays = record_to_arrays(msg.content["arrays"])
        arrays["w"] = arrays["w"] + step * np.arange(1, 9, dtype=np.float32)
        arrays["n"] = arrays["n"] + 1
        return Message(RecordDict({"arrays": arrays_to_record(arrays)}), reply_to=msg)

    return work


def header_of(reply: Message) -> UploadHeader:
    return DeviceReport.read(reply.content)[1]


def update_of(reply: Message) -> dict[str, np.ndarray]:
    layout = Layout.of({"w": MODEL["w"], "n": MODEL["n"]})
    frame = record_to_frame(reply.content["arrays"])
    return get_codec(TOPK).decode(frame, CodecState(layout))[0]


def test_what_is_not_ours_passes_untouched() -> None:
    plain = message(RecordDict({"arrays": arrays_to_record(MODEL)}))
    answer = object()

    def call_next(msg: Message, ctx: Context) -> Any:
        assert msg is plain
        return answer

    assert compression_mod(plain, context(), call_next) is answer


def test_the_app_sees_plain_arrays_and_its_own_records_only() -> None:
    seen: list[RecordDict] = []
    compression_mod(request(TRAIN), context(), app(seen=seen))
    (content,) = seen
    assert set(content) == {"arrays", "config"}
    np.testing.assert_array_equal(record_to_arrays(content["arrays"])["w"], MODEL["w"])


def test_the_frame_is_gone_while_the_app_trains() -> None:
    msg = request(TRAIN)
    frame = weakref.ref(msg.content["arrays"]["frame"])
    work = app()

    def train(msg: Message, ctx: Context) -> Message:
        assert frame() is None
        return work(msg, ctx)

    gc.collect()
    gc.disable()  # a content and its views are a cycle
    try:
        compression_mod(msg, context(), train)
    finally:
        gc.enable()


def test_a_frame_leaves_and_what_it_lacks_comes_next_time() -> None:
    device = context()
    first = compression_mod(request(TRAIN, 1), device, app())
    assert is_frame(first.content["arrays"])
    assert header_of(first).status == UPDATE
    sent = update_of(first)
    assert sent["w"].tolist() == [0, 0, 0, 0, 0, 0, 7, 8]
    assert sent["n"] == 3
    # The second request names no device, so that the first upload stays in doubt.
    second = compression_mod(request(TRAIN, 2, held=True), device, app(0.0))
    assert update_of(second)["w"].tolist() == [0, 0, 0, 0, 5, 6, 0, 0]
    assert header_of(first).upload_id in header_of(second).known


def test_a_request_that_comes_twice_costs_no_work() -> None:
    device, seen = context(), []
    first = compression_mod(request(TRAIN), device, app(seen=seen))
    again = compression_mod(request(TRAIN), device, app(seen=seen))
    assert len(seen) == 1
    assert header_of(first).upload_id == header_of(again).upload_id
    assert record_to_frame(first.content["arrays"]) == record_to_frame(
        again.content["arrays"]
    )


def test_an_evaluation_uploads_no_arrays() -> None:
    def evaluate(msg: Message, _: Context) -> Message:
        return Message(RecordDict(), reply_to=msg)

    reply = compression_mod(request(Plan()), context(), evaluate)
    assert header_of(reply).status == EVALUATED
    assert not reply.content.array_records


def test_a_model_that_cannot_be_read_is_asked_for_whole() -> None:
    seen: list[RecordDict] = []
    reply = compression_mod(request(TRAIN, damage=b"x" * 99), context(), app(seen=seen))
    assert (header_of(reply).status, seen) == (NEED_WHOLE, [])


def test_a_message_that_takes_the_model_in_does_not_call_the_app() -> None:
    seen: list[RecordDict] = []
    device = context()
    compression_mod(request(Plan(call_app=False), 1), device, app(seen=seen))
    assert seen == []
    compression_mod(request(TRAIN, 2, held=True), device, app(seen=seen))
    assert len(seen) == 1


def test_an_error_of_the_app_is_its_own() -> None:
    def fail(msg: Message, _: Context) -> Message:
        raise ZeroDivisionError

    device = context()
    with pytest.raises(ZeroDivisionError):
        compression_mod(request(TRAIN), device, fail)
    # Nothing was committed: the same request is worked on as if for the first time.
    reply = compression_mod(request(TRAIN), device, app())
    assert update_of(reply)["w"].tolist() == [0, 0, 0, 0, 0, 0, 7, 8]


def test_labels_are_told_only_to_who_asks() -> None:
    counts = CompressionMod(labels=lambda _: [3, 4])
    for ask in (False, True):
        plan = Plan(upload=TOPK, ask_labels=ask)
        reply = counts(request(plan), context(), app())
        told = DeviceReport.read(reply.content)[0].labels
        assert told == ((3, 4) if ask else ())


def test_other_tensors_than_the_model_are_refused() -> None:
    def other(msg: Message, _: Context) -> Message:
        arrays = arrays_to_record({"v": np.zeros(3)})
        return Message(RecordDict({"arrays": arrays}), reply_to=msg)

    with pytest.raises(CodecError, match="'w'"):
        compression_mod(request(TRAIN), context(), other)
