"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import INFO
from os import PathLike
from typing import Any

from flwr.app import ArrayRecord, Context, Message, RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.codec.contract.non_finite import without_non_finite
from flwr_caesar.codec.contract.update import nonnegative
from flwr_caesar.flower import ClientAppCallable, log
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
from flwr_caesar.sync.sources import Sources
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
from .memory import give_back
from .message import (
    as_plain,
    frame_of,
    is_clipped,
    pack_others,
    subtract,
    trained_model,
    without_arrays,
)
from .recording import record_update
from .shared_start import with_shared_start
from .stopwatch import Stopwatch
from .store import open_store


@dataclass(frozen=True)
class CompressionMod:
    """Decode the download, call the app, encode its update.

    Add one with ``ClientApp(mods=[compression_mod])``, first in the list: mods behind
    it, such as clipping or noise, see plain arrays. The app receives and returns plain
    ArrayRecords. A message that is not ours passes untouched, so the same ClientApp
    also serves a strategy that does not compress.

    What the device could not send yet, and what it sent and the server has not
    acknowledged, is kept between messages; see `flwr_caesar.clients.store`.

    Parameters
    ----------
    initial : ArrayRecord or callable, optional
        The arrays that the ServerApp starts from, or a function of the Context that
        makes them. A device that is new then downloads only what changed since; if
        they turn out to differ, it is sent a whole model.
    labels : callable, optional
        Function of the Context that returns how many examples the device has of each
        label. Strategies that rank devices by their data ask for it once. Without it
        the device reveals nothing but the number of its examples.
    record : path, optional
        Folder in which each update is written, as ``node-ID/round-N.npz``: for
        ``flwr-caesar codec bench``. What is written there is what the device learned,
        uncompressed and unprotected.
    can : Abilities, optional
        What this device does of all that its release can; it tells the server, which
        asks for no more, and declines what goes beyond. By default it does all, and
        tells nothing.
    sources : Sources, optional
        Where its token and the ids of its uploads come from, for runs that are to
        repeat. By default the machine's.
    """

    initial: ArrayRecord | Callable[[Context], ArrayRecord] | None = None
    labels: Callable[[Context], Sequence[int]] | None = None
    record: str | PathLike[str] | None = None
    can: Abilities | None = field(default=None, kw_only=True)
    sources: Sources = field(default_factory=Sources, kw_only=True)

    def __call__(
        self, msg: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        """Handle one message.

        Raises
        ------
        CodecError
            If a message is damaged, or the app returns arrays whose names or shapes
            differ from the model it was given.
        StateError
            If the device's state cannot be kept; nothing is sent then. Flower reports
            either to the server, which drops this reply and goes on with the others.
        """
        if not msg.has_content() or note_of(msg.content) is None:
            return call_next(msg, context)
        with watched() as board:
            return self._handle(msg, context, call_next, board)

    def _handle(
        self,
        msg: Message,
        context: Context,
        call_next: ClientAppCallable,
        board: Board,
    ) -> Message:
        watch = Stopwatch()
        plan, header = Plan.read(msg.content)
        lacks = ""
        if self.can:
            lacks = self.can.lacking(plan, frame_of(msg.content, plan))
        method = device_method(*(("", {}) if lacks else (plan.part, plan.settings)))
        clipped = is_clipped(msg.content, plan)
        with open_store(context) as store:
            state = store.load(header.lineage)
            trains = bool(plan.upload) and plan.call_app
            if not is_answered(state, header) and (
                lacks or (trains and board.declines())
            ):
                declined = decline(state, header, self.sources.new_token)
                if state is None:
                    store.save(declined.state)
                can = self.can if lacks else self._said(declined.state, header)
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
            state = self._with_first_model(state, header, plan, context)
            received = receive(
                state,
                header,
                frame_of(msg.content, plan),
                train=bool(plan.upload),
                new_token=self.sources.new_token,
                decode_model=lambda frame, base: method.decode(state, frame, base),
                exact=plan.exact,
            )
            for note in received.notes:
                log(INFO, "flwr-caesar: %s", note)
            can = self._said(received.state, header)
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
            content = RecordDict(dict(reply.content.items()))
            # The model goes as it is taken in, so that a device never has it twice.
            msg.content, reply.content = without_arrays(msg.content), RecordDict()
            measured: Mapping[str, Any] = {}
            labels = self.labels(context) if self.labels and plan.ask_labels else ()
            if not plan.upload:
                upload = evaluated(after, header)
            else:
                key, arrays = trained_model(content, state.model, plan.record)
                # The models that the app was given and has returned are not needed.
                give_back(sum(array.nbytes for array in arrays.values()))
                is_model = plan.payload == MODEL_PAYLOAD
                codec = get_codec(plan.upload)
                if is_model:
                    arrays = without_non_finite(arrays, state.model)
                update = arrays if is_model or not plan.part else dict(arrays)
                signs = frozenset() if is_model else nonnegative(arrays)
                if self.record is not None:
                    record_update(
                        self.record, context, msg.content, arrays, state.model
                    )
                if not is_model:
                    subtract(update, state.model, overwrite=not plan.part)
                committed = commit_update(
                    after,
                    header,
                    update,
                    nonnegative=signs,
                    overwrite=not is_model,
                    codec=codec,
                    new_id=self.sources.new_id,
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

    def _said(self, state: DeviceState, header: DownloadHeader) -> Abilities | None:
        """Return what the reply has to say of the device's abilities."""
        can = self.can
        return can if can and must_report(state, header, can.to_text()) else None

    def _with_first_model(
        self,
        state: DeviceState | None,
        header: DownloadHeader,
        plan: Plan,
        context: Context,
    ) -> DeviceState | None:
        """Give a device that has no model the one that its app starts from."""
        if self.initial is None or not plan.start or (state and state.version >= 0):
            return state
        initial = self.initial if not callable(self.initial) else self.initial(context)
        return with_shared_start(
            state,
            header,
            record_to_arrays(initial),
            plan.start,
            self.sources.new_token,
        )


compression_mod = CompressionMod()

_CLIPPED = "what is left of earlier updates is given up, as this one is clipped"


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
