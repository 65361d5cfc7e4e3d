"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from logging import INFO

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.supercore import log

from flwr_caesar.codec import CodecError, difference, get_codec
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.sync.device import commit_update, evaluated, forget_old, receive
from flwr_caesar.sync.protocol import TOKEN_BYTES, DownloadHeader, UploadHeader
from flwr_caesar.transport import (
    RECORD_KEY,
    Plan,
    Timing,
    arrays_to_record,
    frame_to_record,
    record_to_arrays,
    record_to_frame,
    require_record,
)

from .store import open_store


def compression_mod(
    msg: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Decode the download, call the app, encode its update.

    Add it with ``ClientApp(mods=[compression_mod])``, first in the list: mods behind
    it, such as clipping or noise, see plain arrays. The app receives and returns plain
    ArrayRecords. A message that is not ours passes untouched, so the same ClientApp
    also serves a strategy that does not compress.

    What the device could not send yet, and what it sent and the server has not
    acknowledged, is kept between messages; see `flwr_caesar.clients.store`.

    Raises
    ------
    CodecError
        If a message is damaged, or the app returns arrays whose names or shapes differ
        from the model it was given.
    StateError
        If the device's state cannot be kept; nothing is sent then. Flower reports
        either to the server, which drops this reply and goes on with the others.
    """
    if not msg.has_content() or RECORD_KEY not in msg.content:
        return call_next(msg, context)
    start = time.monotonic()
    plan = Plan.from_content(msg.content)
    header = DownloadHeader.from_dict(require_record(msg.content))
    with open_store(context) as store:
        state = store.load(header.lineage)
        if state is not None:
            state, forgotten = forget_old(state, header, plan.max_residual_age)
            if forgotten:
                log(INFO, "flwr-caesar: the residual is too old and is given up")
        received = receive(
            state,
            header,
            _frame(msg.content, plan),
            train=plan.upload is not None,
            new_token=lambda: secrets.token_bytes(TOKEN_BYTES),
        )
        for note in received.notes:
            log(INFO, "flwr-caesar: %s", note)
        if received.model is None:
            store.save(received.state)
            return _answer(msg, plan, received.reply, received.frame)
        watch = _Watch(start)
        watch.decoded = time.monotonic()
        reply = call_next(_plain(msg, plan, received.model), context)
        watch.trained = time.monotonic()
        if not reply.has_content():
            return reply
        content = RecordDict(dict(reply.content.items()))
        if plan.upload is None:
            store.save(received.state)
            upload = evaluated(received.state, header)
        else:
            key, arrays = _returned(content, received.model)
            committed = commit_update(
                received.state,
                header,
                difference(arrays, received.model),
                codec=get_codec(plan.upload),
                new_id=_new_id,
                error_feedback=plan.error_feedback,
            )
            store.save(committed.state)
            upload = committed.reply
            content[key] = frame_to_record(committed.frame)
    content[RECORD_KEY] = watch.timing().to_record(upload)
    reply.content = content
    return reply


@dataclass
class _Watch:
    start: float
    decoded: float = 0.0
    trained: float = 0.0

    def timing(self) -> Timing:
        return Timing(
            train=self.trained - self.decoded,
            encode=time.monotonic() - self.trained,
            decode=self.decoded - self.start,
        )


def _new_id() -> int:
    return secrets.randbits(64) or 1


def _frame(content: RecordDict, plan: Plan) -> bytes | None:
    record = content.get(plan.record)
    return record_to_frame(record) if isinstance(record, ArrayRecord) else None


def _plain(msg: Message, plan: Plan, model: Arrays) -> Message:
    content = RecordDict(dict(msg.content.items()))
    del content[RECORD_KEY]
    content[plan.record] = arrays_to_record(model)
    msg.content = content
    return msg


def _answer(
    msg: Message, plan: Plan, header: UploadHeader | None, frame: bytes | None
) -> Message:
    """Return a reply that the app had no part in."""
    if header is None:
        raise CodecError("the request has nothing to work on")
    content = RecordDict({RECORD_KEY: Timing().to_record(header)})
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
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != {name: array.shape for name, array in model.items()}:
        raise CodecError(
            f"the app returned arrays {key!r} whose names or shapes differ from the "
            "model it was given; compression sends the difference to that model"
        )
    return key, {name: arrays[name] for name in model}
