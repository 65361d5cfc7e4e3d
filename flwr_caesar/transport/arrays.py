"""Records of arrays: plain ones, and such as are one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from flwr_caesar.codec import CodecError, get_codec, inspect_frame
from flwr_caesar.codec.contract.base import DEFAULT_MAX_BYTES
from flwr_caesar.codec.contract.layout import Arrays, Layout, dtype_name, to_dtype
from flwr_caesar.flower import arrays_in, configs_in, metrics_in, record_of

from .envelope import frame_to_record, is_frame, note_nbytes, record_to_frame
from .npy import from_flower, to_flower

_HELD_BYTES = 64


def record_to_arrays(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a plain record by name; they may be views of its bytes.

    Raises
    ------
    CodecError
        If an array is malformed, with its name.
    """
    return {name: _to_numpy(name, array) for name, array in record.items()}


def _to_numpy(name: str, array: Array) -> np.ndarray[Any, Any]:
    try:
        found = from_flower(array)
    except Exception as err:  # of a header, NumPy raises all that Python's parser does
        raise CodecError(f"array {name!r} cannot be read: {err}") from err
    if found.dtype.kind == "V" and array.dtype == "bfloat16":
        # Flower keeps such an array, but its file format forgets what it is.
        return found.view(to_dtype("bfloat16"))
    return found


def arrays_to_record(arrays: Arrays) -> ArrayRecord:
    """Return a plain record of named arrays."""
    return record_of({name: to_flower(np.asarray(a)) for name, a in arrays.items()})


def widened_record(arrays: Arrays) -> ArrayRecord:
    """Return a plain record that Flower's strategies can compute with.

    They know float16, float32 and float64; tensors in bfloat16 become float32, which
    holds the same values.
    """
    return record_of({name: to_flower(_widened(a)) for name, a in arrays.items()})


def _widened(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float32) if dtype_name(array.dtype) == "bfloat16" else array


def widened_in_place(arrays: dict[str, np.ndarray[Any, Any]]) -> ArrayRecord:
    """Return what `widened_record` does, and empty `arrays` as it goes.

    So memory holds a model and one tensor, not two models.
    """
    record = ArrayRecord()
    for name in list(arrays):
        record.update(widened_record({name: arrays.pop(name)}))
    return record


def rounded_record(record: ArrayRecord, layout: Layout) -> ArrayRecord:
    """Return a record of which the tensors in bfloat16 have only values of that type.

    A server goes on with the mean of such tensors in float32, so that what a round
    moves by less than their precision adds up; devices are sent it rounded. The type of
    the arrays stays.

    Parameters
    ----------
    record : ArrayRecord
        Not changed; what `widened_record` made.
    layout : Layout
        Of the model, which says what is in bfloat16.
    """
    names = [spec.name for spec in layout.tensors if spec.dtype == "bfloat16"]
    if not any(name in record for name in names):
        return record
    rounded = dict(record.items())
    for name in filter(rounded.__contains__, names):
        array = rounded[name].numpy()
        if array.dtype.kind == "f":
            narrow = array.astype(to_dtype("bfloat16"))
            rounded[name] = Array(narrow.astype(array.dtype))
    return ArrayRecord(rounded)


def record_nbytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays as Flower carries them."""
    return sum(len(array.data) for array in record.values())


def arrays_nbytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message as Flower carries them."""
    return sum(record_nbytes(record) for record in arrays_in(content).values())


def message_nbytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message, and of our note, as Flower carries them."""
    return arrays_nbytes(content) + note_nbytes(content)


def told_nbytes(content: RecordDict) -> int:
    """Bytes of what a message says beside its arrays, about as they are held.

    Each name, and each text of a list, counts 64 bytes more: a million numbers under
    names of their own take a hundred megabytes.
    """
    names: list[str] = [*content]
    values: list[object] = []
    for metrics in metrics_in(content).values():
        names += metrics.keys()
        values += metrics.values()
    for config in configs_in(content).values():
        names += config.keys()
        values += config.values()
    return sum(map(len, names)) + _HELD_BYTES * len(names) + sum(map(_told, values))


def _told(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, list):
        if value and isinstance(value[0], (str, bytes)):
            return sum(map(len, value)) + _HELD_BYTES * len(value)
        return 8 * len(value)
    return 8


def exact_record(record: ArrayRecord) -> ArrayRecord:
    """Return a record as one exact frame, where that is possible and shorter."""
    if is_frame(record) or not len(record):
        return record
    try:
        framed = frame_to_record(
            get_codec("dense").encode(record_to_arrays(record), finite=False)[0]
        )
    except CodecError:
        return record
    return min(framed, record, key=record_nbytes)


def plain_record(
    record: ArrayRecord, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> ArrayRecord:
    """Return a record with plain arrays, of a frame that needs no state.

    Parameters
    ----------
    record : ArrayRecord
        A frame, or plain arrays already, which are returned as they are.
    max_bytes : int
        Most bytes of arrays to believe the frame's own table: a frame of some kB can
        hold gigabytes of zeros.

    Raises
    ------
    CodecError
        If the frame is damaged, or claims more.
    """
    if not is_frame(record):
        return record
    frame = record_to_frame(record)
    codec = get_codec(inspect_frame(frame).config)
    return arrays_to_record(codec.decode(frame, finite=False, max_bytes=max_bytes)[0])
