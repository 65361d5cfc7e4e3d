"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    ErrorFeedback,
    Layout,
    difference,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.transport import (
    RECORD_KEY,
    Plan,
    Timing,
    arrays_to_record,
    frame_to_record,
    is_frame_record,
    record_to_arrays,
    record_to_frame,
)

from .residual import load_residual, store_residual

_NumpyArrays = dict[str, np.ndarray[Any, Any]]


def compression_mod(
    msg: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Decode the download, call the app, encode its update.

    Add it with ``ClientApp(mods=[compression_mod])``, first in the list: mods behind
    it, such as clipping or noise, see plain arrays. The app receives and returns plain
    ArrayRecords. A message without frames passes untouched, so the same ClientApp also
    serves a strategy that does not compress.

    Raises
    ------
    CodecError
        If a download cannot be decoded, or the app returns arrays whose names or
        shapes differ from the model it was given. Flower reports it to the server,
        which drops this reply and goes on with the others.
    """
    if not msg.has_content() or not any(
        is_frame_record(record) for record in msg.content.array_records.values()
    ):
        return call_next(msg, context)
    plan = Plan.from_content(msg.content)
    start = time.monotonic()
    models = {key: _decode(record) for key, record in msg.content.array_records.items()}
    decoded = time.monotonic()
    reply = call_next(_plain(msg, models), context)
    trained = time.monotonic()
    if plan.upload is None or not reply.has_content():
        return reply
    content = RecordDict(dict(reply.content.items()))
    for key, record in reply.content.array_records.items():
        content[key] = _encode(plan, key, record, models, context)
    content[RECORD_KEY] = Timing(
        train=trained - decoded,
        encode=time.monotonic() - trained,
        decode=decoded - start,
    ).to_record()
    reply.content = content
    return reply


def _decode(record: ArrayRecord) -> _NumpyArrays:
    frame = record_to_frame(record)
    arrays, _ = get_codec(inspect_frame(frame).config).decode(frame)
    return arrays


def _plain(msg: Message, models: dict[str, _NumpyArrays]) -> Message:
    content = RecordDict(dict(msg.content.items()))
    del content[RECORD_KEY]
    for key, arrays in models.items():
        content[key] = arrays_to_record(arrays)
    msg.content = content
    return msg


def _encode(
    plan: Plan,
    key: str,
    record: ArrayRecord,
    models: dict[str, _NumpyArrays],
    context: Context,
) -> ArrayRecord:
    arrays = record_to_arrays(record)
    base = _find_base(key, arrays, models)
    update = difference({name: arrays[name] for name in base}, base)
    codec = get_codec(plan.upload or "dense")
    state = CodecState(update_layout(Layout.of(base)))
    if not plan.error_feedback:
        return frame_to_record(codec.encode(update, state)[0])
    known = CodecState(state.layout, private=load_residual(context, key))
    frame, after = ErrorFeedback(codec).encode(update, known)
    store_residual(context, key, dict(after.private))
    return frame_to_record(frame)


def _find_base(
    key: str, arrays: _NumpyArrays, models: dict[str, _NumpyArrays]
) -> _NumpyArrays:
    """Return the received model that the app's arrays are a new value of."""
    shapes = {name: array.shape for name, array in arrays.items()}
    candidates = [models[key]] if key in models else []
    candidates += list(models.values())
    for base in candidates:
        if shapes == {name: array.shape for name, array in base.items()}:
            return base
    raise CodecError(
        f"the app returned arrays {key!r} whose names or shapes differ from the model "
        "it was given; compression sends the difference to that model"
    )
