"""What a message holds for the app, and what the app's reply holds for the server."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from flwr_caesar.codec import CodecError, difference
from flwr_caesar.codec.contract.layout import (
    FLOAT_DTYPES,
    Array,
    Arrays,
    Layout,
    dtype_name,
    first_difference,
    other_shape,
)
from flwr_caesar.codec.contract.non_finite import is_finite
from flwr_caesar.flower import KEY_CLIPPING_NORM, arrays_in, configs_in
from flwr_caesar.sync.mapped import let_go
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.transport import (
    Plan,
    arrays_to_record,
    exact_record,
    plain_record,
    record_to_arrays,
    record_to_frame,
    without_note,
)

_PIECE = 1 << 16


def frame_of(content: RecordDict, plan: Plan) -> bytes | None:
    """Return the frame of the model in a message; `None` if it has none.

    Raises
    ------
    CodecError
        If there is something else in its place.
    """
    record = content.get(plan.record)
    return record_to_frame(record) if isinstance(record, ArrayRecord) else None


def drop_frame(content: RecordDict, plan: Plan) -> None:
    """Take the frame of the model out of a message, of which the record stays."""
    if plan.record in content:
        content[plan.record] = ArrayRecord()


def is_clipped(content: RecordDict, plan: Plan) -> bool:
    """Whether a mod behind this one is to clip the update.

    Raises
    ------
    CodecError
        If what is sent would then be something else than what was clipped.
    """
    if not any(KEY_CLIPPING_NORM in r for r in configs_in(content).values()):
        return False
    if plan.error_feedback or plan.payload == MODEL_PAYLOAD:
        raise CodecError(
            "the server asks for a clipped update, and for a residual to be added to "
            "it or a model to be sent instead, which may be longer than the clipping "
            "norm: set error_feedback=False there, or clip on the server"
        )
    return bool(plan.upload)


def as_plain(content: RecordDict, plan: Plan, model: Arrays) -> RecordDict:
    """Return what the app is to see of a message.

    Parameters
    ----------
    content : RecordDict
        Of the message; not changed.
    plan : Plan
        That came with it.
    model : mapping of str to ndarray
        The model that it means.
    """
    # The order that the inner strategy gave the records is kept, where the model is
    # among them: an app may take the first.
    plain = RecordDict()
    if plan.record not in content:
        plain[plan.record] = arrays_to_record(model)
    for name, record in without_note(content).items():
        if name == plan.record:
            plain[name] = arrays_to_record(model)
        else:
            plain[name] = (
                plain_record(record) if isinstance(record, ArrayRecord) else record
            )
    return plain


def trained_model(
    content: RecordDict, model: Arrays, sent_as: str
) -> tuple[str, dict[str, Array]]:
    """Take the app's model out of its reply; return its name and its arrays.

    The arrays are in the order in which they were sent. The reply's record of that name
    is empty afterwards, so that the model is not held twice.

    A tensor that is floating point on both sides has the dtype of the model.

    Parameters
    ----------
    content : RecordDict
        Of the app's reply.
    model : mapping of str to ndarray
        What the app was given.
    sent_as : str
        Under which name.

    Raises
    ------
    CodecError
        If the reply has no such model, or its tensors differ, with the first of them.
    """
    names = list(arrays_in(content))
    if not names:
        raise CodecError("the app returned no ArrayRecord; compression sends the model")
    if len(names) > 1 and sent_as not in names:
        raise CodecError(
            f"the app returned the ArrayRecords {', '.join(sorted(names))}, and none "
            f"is named {sent_as!r} as the model it was given"
        )
    key = names[0] if len(names) == 1 else sent_as
    arrays = record_to_arrays(arrays_in(content)[key])
    content[key] = ArrayRecord()
    found = {name: array.shape for name, array in arrays.items()}
    expected = {name: array.shape for name, array in model.items()}
    if found.keys() != expected.keys():
        raise CodecError(
            "the app returned other tensors than it was given: "
            + first_difference(Layout.of(model), Layout.of(arrays))
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CodecError(other_shape(name, found[name], shape))
    return key, {name: _as(arrays[name], model[name]) for name in model}


def drop_arrays(content: RecordDict) -> None:
    """Take the ArrayRecords out of a content, which its views hold in a cycle."""
    for name in list(arrays_in(content)):
        del content[name]


def subtract(arrays: dict[str, Array], model: Arrays, *, overwrite: bool) -> None:
    """Put the `difference` of each array to a model in its place.

    Parameters
    ----------
    arrays : dict of str to ndarray
        The trained model; becomes the update.
    model : mapping of str to ndarray
        What it was trained from. Tensors that are read from a file take no memory
        afterwards.
    overwrite : bool
        Whether the update may take the memory of the arrays.
    """
    for name, array in arrays.items():
        old = model[name]
        if not (overwrite and _subtract_in_place(name, array, old)):
            arrays.update(difference({name: array}, {name: old}))
        let_go([old])


def _subtract_in_place(name: str, new: Array, old: Array) -> bool:
    """Put the `difference` in the place of `new`, if the memory fits."""
    fits = new.dtype == old.dtype and dtype_name(new.dtype) in ("float32", "float64")
    if not fits or new.shape != old.shape or not new.flags.carray:
        return False
    left, right = new.reshape(-1), old.reshape(-1)
    gap = np.empty(min(left.size, _PIECE), left.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, left.size, _PIECE):
            piece, before = left[start : start + _PIECE], right[start : start + _PIECE]
            found = np.subtract(piece, before, out=gap[: piece.size])
            if not is_finite(found):
                found = difference({name: piece}, {name: before})[name]
            piece[...] = found
    return True


def pack_others(content: RecordDict, key: str) -> None:
    """Make exact frames of the reply's ArrayRecords but one, in place."""
    for name, record in list(arrays_in(content).items()):
        if name != key:
            content[name] = exact_record(record)


def _as(array: Array, model: Array) -> Array:
    both_float = {dtype_name(array.dtype), dtype_name(model.dtype)} <= FLOAT_DTYPES
    if array.dtype == model.dtype or not both_float:
        return array
    with np.errstate(over="ignore"):
        return array.astype(model.dtype)
