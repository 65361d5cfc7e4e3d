"""One message on a device: decoded, passed to the app, and its update encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from logging import INFO
from typing import TYPE_CHECKING, Any
from weakref import ref

from flwr.app import Context, Message, RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.codec.contract.non_finite import without_non_finite
from flwr_caesar.codec.contract.update import nonnegative
from flwr_caesar.flower import ClientAppCallable, arrays_in, log
from flwr_caesar.methods import device_method
from flwr_caesar.sync.device import (
    commit_update,
    decline,
    evaluated,
    is_answered,
    receive,
)
from flwr_caesar.sync.forget import forget, forget_old
from flwr_caesar.sync.protocol import DownloadHeader, UploadHeader
from flwr_caesar.sync.reported import must_report, reported
from flwr_caesar.sync.shared_model import SharedModel
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import (
    Abilities,
    DeviceReport,
    Plan,
    frame_to_record,
    note_of,
    record_to_arrays,
    with_note,
)

from .board import Board, watched
from .cached_reply import CachedReply
from .memory import collecting_less, give_back
from .message import (
    as_plain,
    drop_arrays,
    drop_frame,
    frame_of,
    is_clipped,
    pack_others,
    subtract,
    trained_model,
)
from .stopwatch import Stopwatch
from .store import open_store

if TYPE_CHECKING:
    from .mod import CompressionMod

_CLIPPED = "what is left of earlier updates is given up, as this one is clipped"


def handle(
    device: CompressionMod,
    msg: Message,
    context: Context,
    call_next: ClientAppCallable,
) -> Message:
    """Handle one message; see `CompressionMod.__call__`."""
    if note_of(msg.content) is None:
        return call_next(msg, context)
    with watched() as board, collecting_less():
        return _handled(device, msg, context, call_next, board)


def _handled(
    device: CompressionMod,
    msg: Message,
    context: Context,
    call_next: ClientAppCallable,
    board: Board,
) -> Message:
    watch = Stopwatch()
    came = [ref(record) for record in arrays_in(msg.content).values()]
    plan, header = Plan.read(msg.content)
    lacks = ""
    if device.can:
        lacks = device.can.lacking(plan, frame_of(msg.content, plan))
    method = device_method(*(("", {}) if lacks else (plan.part, plan.settings)))
    clipped = is_clipped(msg.content, plan)
    with open_store(context) as store:
        state = store.load(header.lineage)
        trains = bool(plan.upload) and plan.call_app
        if not is_answered(state, header) and (lacks or (trains and board.declines())):
            declined = decline(state, header, device.sources.new_token)
            if state is None:
                store.save(declined.state)
            can = device.can if lacks else _said(device, declined.state, header)
            report = DeviceReport(telemetry=_told(board.stop(), lacks), can=can)
            return _answer(msg, plan, declined.reply, report=report)
        if state is not None:
            state, forgotten = forget_old(state, header, plan.max_residual_age)
            if forgotten:
                log(INFO, "flwr-caesar: the residual is too old and is given up")
            if clipped:
                state, forgotten = forget(state, header)
                if forgotten:
                    log(INFO, "flwr-caesar: %s", _CLIPPED)
        state = _with_first_model(device, state, header, plan, context)

        def decode_model(frame: bytes, base: Arrays | None) -> Arrays:
            if state is not None and state.pending:
                # What it took to settle them, and what they build on, is not needed.
                give_back(sum(array.nbytes for array in state.model.values()))
            model = method.decode(state, frame, base)
            if isinstance(model, SharedModel):
                watch.spared(model.spared())
            return model

        received = receive(
            state,
            header,
            frame_of(msg.content, plan),
            train=bool(plan.upload),
            new_token=device.sources.new_token,
            decode_model=decode_model,
            exact=plan.exact,
        )
        drop_frame(msg.content, plan)
        for note in received.notes:
            log(INFO, "flwr-caesar: %s", note)
        can = _said(device, received.state, header)
        if received.model is None:
            store.save(received.state)
            return _answer(
                msg, plan, received.reply, received.frame, received.state, can=can
            )
        state = store.prepare(received.state)
        received = replace(received, state=state, model=state.model)
        after, content = method.before(
            received, as_plain(msg.content, plan, state.model)
        )
        drop_arrays(msg.content)
        watch.decoded()
        if not plan.call_app:
            store.save(after)
            report = watch.report(part=method.report(after), telemetry=board.stop())
            report = replace(report, can=can)
            return _answer(msg, plan, evaluated(after, header), report=report)
        msg.content = board.with_fewer_steps(content) if trains else content
        reply = call_next(msg, context)
        watch.trained()
        if not reply.has_content():
            return reply
        content = reply.content.copy()
        # The model goes as it is taken in, so that a device never has it twice.
        drop_arrays(msg.content)
        reply.content = RecordDict()
        measured: Mapping[str, Any] = {}
        labels = device.labels(context) if device.labels and plan.ask_labels else ()
        if not plan.upload:
            upload = evaluated(after, header)
        else:
            key, arrays = trained_model(content, state.model, plan.record)
            # The models that the app was given and has returned are not needed.
            give_back(sum(a.nbytes for a in arrays.values()), dropped=came)
            is_model = plan.payload == MODEL_PAYLOAD
            codec = get_codec(plan.upload)
            if is_model:
                arrays = without_non_finite(arrays, state.model)
            update = arrays if is_model or not plan.part else dict(arrays)
            signs = frozenset() if is_model else nonnegative(arrays)
            if device.record is not None:
                from .recording import record_update

                record_update(device.record, context, msg.content, arrays, state.model)
            if not is_model:
                subtract(update, state.model, overwrite=not plan.part)
            committed = commit_update(
                after,
                header,
                update,
                nonnegative=signs,
                overwrite=not is_model,
                codec=codec,
                new_id=device.sources.new_id,
                error_feedback=plan.error_feedback,
                payload=plan.payload,
                want_sent=bool(plan.part),
            )
            upload = committed.reply
            content[key] = frame_to_record(committed.frame)
            measured = method.measure(codec, committed.total, committed.sent)
            after = method.after(committed.state, arrays, committed.sent)
            # Not held while the state is written.
            del update, committed
            arrays.clear()
            pack_others(content, key)
        part = {**method.report(after), **measured}
        if plan.upload:
            cached = CachedReply.of(content, part, labels, upload=key, can=can)
            after = cached.into(after)
            if can:
                after = reported(after, can.to_text(), upload.upload_id)
        store.save(after)
    report = watch.report(part=part, labels=tuple(labels), telemetry=board.stop())
    report = replace(report, can=can)
    leads = key if plan.upload else ""
    reply.content = with_note(content, report.note(upload), leads=leads)
    return reply


def _said(
    device: CompressionMod, state: DeviceState, header: DownloadHeader
) -> Abilities | None:
    """Return what the reply has to say of the device's abilities."""
    can = device.can
    return can if can and must_report(state, header, can.to_text()) else None


def _with_first_model(
    device: CompressionMod,
    state: DeviceState | None,
    header: DownloadHeader,
    plan: Plan,
    context: Context,
) -> DeviceState | None:
    """Give a device that has no model the one that its app starts from."""
    if device.initial is None or not plan.start or (state and state.version >= 0):
        return state
    initial = device.initial
    if callable(initial):
        initial = initial(context)
    from .shared_start import with_shared_start  # and what publishes models

    return with_shared_start(
        state,
        header,
        record_to_arrays(initial),
        plan.start,
        device.sources.new_token,
    )


def _told(telemetry: Telemetry | None, lacks: str) -> Telemetry | None:
    """Return telemetry that says, where a device lacks something, that it declined."""
    if not lacks:
        return telemetry
    log(INFO, "flwr-caesar: declines: there is %s here", lacks)
    return replace(telemetry or Telemetry(), policy=f"declined: {lacks}")


def _answer(
    msg: Message,
    plan: Plan,
    header: UploadHeader | None,
    frame: bytes | None = None,
    state: DeviceState | None = None,
    *,
    report: DeviceReport | None = None,
    can: Abilities | None = None,
) -> Message:
    """Return a reply that the app had no part in, or not this time."""
    if header is None:
        raise CodecError("the request has nothing to work on")
    cached = CachedReply()
    if state:
        cached = CachedReply.beside(state, header.upload_id)
    content = RecordDict(dict(cached.records()))
    if frame is not None:
        content[plan.record] = frame_to_record(frame)
    if report is None:
        report = cached.report()
        report = report if frame is not None else replace(report, can=can)
    note = report.note(header)
    leads = plan.record if frame is not None else ""
    return Message(with_note(content, note, leads=leads), reply_to=msg)
