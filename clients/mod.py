"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import INFO
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
from flwr_caesar.sync.mapped import let_go
from flwr_caesar.sync.protocol import DownloadHeader, UploadHeader
from flwr_caesar.sync.sources import Sources
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState
from flwr_caesar.transport import (
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
from .start import start_state
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
    sources : Sources, optional
        Where its token and the ids of its uploads come from, for runs that are to
        repeat. By default the machine's.
    """

    initial: ArrayRecord | Callable[[Context], ArrayRecord] | None = None
    labels: Callable[[Context], Sequence[int]] | None = None
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
        method = device_method(plan.part, plan.settings)
        clipped = is_clipped(msg.content, plan)
        with open_store(context) as store:
            state = store.load(header.lineage)
            trains = bool(plan.upload) and plan.call_app
            if trains and not is_answered(state, header) and board.declines():
                declined = decline(state, header, self.sources.new_token)
                if state is None:
                    store.save(declined.state)
                report = DeviceReport(telemetry=board.stop())
                return _answer(msg, plan, declined.reply, report=report)
            if state is not None:
                state, forgotten = forget_old(state, header, plan.max_residual_age)
                if forgotten:
                    log(INFO, "flwr-caesar: the residual is too old and is given up")
                if clipped:
                    state, forgotten = forget(state, header)
                    if forgotten:
                        log(INFO, "flwr-caesar: %s", _CLIPPED)
            state = self._with_start(state, header, plan, context)
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
            if received.model is None:
                store.save(received.state)
                return _answer(
                    msg, plan, received.reply, received.frame, received.state
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
                if not is_model:
                    subtract(update, state.model)
                    let_go(state.model.values())
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
                measured = method.measure(codec, committed.total, committed.sent)
                after = method.after(committed.state, arrays, committed.sent)
                upload = committed.reply
                content[key] = frame_to_record(committed.frame)
                pack_others(content, key)
            part = {**method.report(after), **measured}
            if plan.upload:
                cached = CachedReply.of(content, part, labels, upload=key)
                after = cached.into(after)
            store.save(after)
        report = watch.report(part=part, labels=tuple(labels), telemetry=board.stop())
        leads = key if plan.upload else ""
        reply.content = with_note(content, report.note(upload), leads=leads)
        return reply

    def _with_start(
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
        return start_state(
            state,
            header,
            record_to_arrays(initial),
            plan.start,
            self.sources.new_token,
        )


compression_mod = CompressionMod()

_CLIPPED = "what is left of earlier updates is given up, as this one is clipped"


def _answer(
    msg: Message,
    plan: Plan,
    header: UploadHeader | None,
    frame: bytes | None = None,
    state: DeviceState | None = None,
    *,
    report: DeviceReport | None = None,
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
    note = (report or cached.report()).note(header)
    leads = plan.record if frame is not None else ""
    return Message(with_note(content, note, leads=leads), reply_to=msg)
