"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.supercore import log
from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM

from flwr_caesar.codec import CodecError, difference, get_codec
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.sync.device import (
    commit_update,
    evaluated,
    forget,
    forget_old,
    receive,
)
from flwr_caesar.sync.mapped import let_go
from flwr_caesar.sync.protocol import TOKEN_BYTES, DownloadHeader, UploadHeader
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState
from flwr_caesar.transport import (
    RECORD_KEY,
    DeviceReport,
    Plan,
    arrays_to_record,
    frame_to_record,
    record_to_arrays,
    record_to_frame,
    require_record,
)

from .memory import give_back
from .parts import get_part
from .retelling import Told
from .start import start_state
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
    """

    initial: ArrayRecord | Callable[[Context], ArrayRecord] | None = None
    labels: Callable[[Context], Sequence[int]] | None = None

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
        if not msg.has_content() or RECORD_KEY not in msg.content:
            return call_next(msg, context)
        watch = _Watch(start=_STARTUP.take())
        plan = Plan.from_content(msg.content)
        header = DownloadHeader.from_dict(require_record(msg.content))
        part = get_part(plan.part, plan.settings)
        clipped = _is_clipped(msg.content, plan)
        with open_store(context) as store:
            state = store.load(header.lineage)
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
                _frame(msg.content, plan),
                train=bool(plan.upload),
                new_token=_new_token,
                decode_model=lambda frame, base: part.decode(state, frame, base),
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
            after, content = part.before(received, _plain(msg, plan, state.model))
            watch.decoded()
            if not plan.call_app:
                store.save(after)
                report = watch.report(part=part.report(after))
                return _answer(msg, plan, evaluated(after, header), report=report)
            msg.content = content
            reply = call_next(msg, context)
            watch.trained()
            if not reply.has_content():
                return reply
            content = RecordDict(dict(reply.content.items()))
            msg.content, reply.content = _without_arrays(msg.content), RecordDict()
            measured: Mapping[str, Any] = {}
            labels = self.labels(context) if self.labels and plan.ask_labels else ()
            if not plan.upload:
                upload = evaluated(after, header)
            else:
                key, arrays = _returned(content, state.model)
                # The models that the app was given and has returned are not needed.
                give_back(sum(array.nbytes for array in arrays.values()))
                is_model = plan.payload == MODEL_PAYLOAD
                codec = get_codec(plan.upload)
                update = arrays if is_model or not plan.part else dict(arrays)
                if not is_model:
                    _subtract(update, state.model)
                    let_go(state.model.values())
                committed = commit_update(
                    after,
                    header,
                    update,
                    overwrite=not is_model,
                    codec=codec,
                    new_id=_new_id,
                    error_feedback=plan.error_feedback,
                    payload=plan.payload,
                    want_sent=bool(plan.part),
                )
                measured = part.measure(codec, committed.total, committed.sent)
                after = part.after(committed.state, arrays, committed.sent)
                upload = committed.reply
                content[key] = frame_to_record(committed.frame)
            told = Told.of(content, {**part.report(after), **measured}, labels)
            store.save(told.into(after) if plan.upload else after)
        report = watch.report(part=told.part, labels=told.labels)
        content[RECORD_KEY] = report.to_record(upload)
        reply.content = content
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
            state, header, record_to_arrays(initial), plan.start, _new_token
        )


compression_mod = CompressionMod()

_CLIPPED = "what is left of earlier updates is given up, as this one is clipped"


class _Startup:
    """Seconds that this process took to start, told once.

    Flower starts a process for each message and fetches the message meanwhile, before
    it loads the app, and this module with it. So what came before counts in seconds of
    the processor and, where Linux tells, of waiting for it: these do not pass while it
    waits for the network. What came since counts by the clock.
    """

    def __init__(self) -> None:
        self._before: float | None = time.process_time() + _seconds_queued()
        self._loaded = time.monotonic()

    def take(self) -> float:
        before, self._before = self._before, None
        return 0.0 if before is None else before + time.monotonic() - self._loaded


def _seconds_queued() -> float:
    try:
        return int(Path("/proc/self/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


_STARTUP = _Startup()


class _Watch:
    def __init__(self, *, start: float) -> None:
        self._start = start
        self._times = [time.monotonic()] * 3

    def decoded(self) -> None:
        self._times[1:] = [time.monotonic()] * 2

    def trained(self) -> None:
        self._times[2] = time.monotonic()

    def report(
        self, *, part: Mapping[str, Any], labels: tuple[int, ...] = ()
    ) -> DeviceReport:
        start, decoded, trained = self._times
        return DeviceReport(
            train=trained - decoded,
            encode=time.monotonic() - trained,
            decode=decoded - start,
            start=self._start,
            labels=labels,
            part=part,
        )


def _new_id() -> int:
    return secrets.randbits(64) or 1


def _new_token() -> bytes:
    return secrets.token_bytes(TOKEN_BYTES)


def _frame(content: RecordDict, plan: Plan) -> bytes | None:
    record = content.get(plan.record)
    return record_to_frame(record) if isinstance(record, ArrayRecord) else None


def _is_clipped(content: RecordDict, plan: Plan) -> bool:
    """Whether a mod behind this one is to clip the update.

    Raises
    ------
    CodecError
        If what is sent would then be something else than what was clipped.
    """
    if not any(KEY_CLIPPING_NORM in r for r in content.config_records.values()):
        return False
    if plan.error_feedback or plan.payload == MODEL_PAYLOAD:
        raise CodecError(
            "the server asks for a clipped update, and for a residual to be added to "
            "it or a model to be sent instead, which may be longer than the clipping "
            "norm: set error_feedback=False there, or clip on the server"
        )
    return bool(plan.upload)


def _plain(msg: Message, plan: Plan, model: Arrays) -> RecordDict:
    content = RecordDict(dict(msg.content.items()))
    del content[RECORD_KEY]
    content[plan.record] = arrays_to_record(model)
    return content


def _without_arrays(content: RecordDict) -> RecordDict:
    rest = RecordDict(dict(content.items()))
    for key in list(rest.array_records):
        del rest[key]
    return rest


def _subtract(arrays: dict[str, Array], model: Arrays) -> None:
    """Put the differences to a model in place of arrays, one after another."""
    for name, array in arrays.items():
        arrays.update(difference({name: array}, {name: model[name]}))


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
    told = Told.beside(state, header.upload_id) if state else Told()
    content = RecordDict(dict(told.records()))
    content[RECORD_KEY] = (report or told.report()).to_record(header)
    if frame is not None:
        content[plan.record] = frame_to_record(frame)
    return Message(content, reply_to=msg)


def _returned(content: RecordDict, model: Arrays) -> tuple[str, dict[str, Array]]:
    """Return the name and the arrays of the app's model, in the order it was sent."""
    if len(content.array_records) != 1:
        raise CodecError(
            f"the app returned {len(content.array_records)} ArrayRecords; compression "
            "sends one, the trained model"
        )
    ((key, record),) = content.array_records.items()
    arrays = record_to_arrays(record)
    content[key] = ArrayRecord()
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != {name: array.shape for name, array in model.items()}:
        raise CodecError(
            f"the app returned arrays {key!r} whose names or shapes differ from the "
            "model it was given; compression sends the difference to that model"
        )
    return key, {name: arrays[name] for name in model}
