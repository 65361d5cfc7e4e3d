"""Tensors that a model carries as they are: those that no lossy codec can stand for."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .errors import CodecError
from .frame import FrameReader, Section
from .layout import Array, Arrays, TensorSpec, to_dtype

TAG = "ASIS"
_COUNT = struct.Struct("<I")


def pack_as_they_are(
    arrays: Arrays, specs: Sequence[TensorSpec], names: Collection[str]
) -> list[Section]:
    """Return a section that holds some of the tensors bit for bit, or no section.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The tensors.
    specs : sequence of TensorSpec
        All tensors of the frame, in order.
    names : collection of str
        Which of them.
    """
    chosen = [i for i, spec in enumerate(specs) if spec.name in names]
    if not chosen:
        return []
    parts = [_COUNT.pack(len(chosen)), np.array(chosen, "<u4").tobytes()]
    for i in chosen:
        spec = specs[i]
        array = np.ascontiguousarray(arrays[spec.name], to_dtype(spec.dtype))
        parts.append(array.tobytes())
    return [Section(TAG, b"".join(parts), itemsize=1)]


def unpack_as_they_are(
    reader: FrameReader, specs: Sequence[TensorSpec]
) -> Mapping[str, Array]:
    """Read what `pack_as_they_are` wrote, as new arrays.

    Raises
    ------
    CodecError
        If the section is not of tensors of the frame, in increasing order.
    """
    if TAG not in reader:
        return {}
    most = _COUNT.size + sum(4 + spec.nbytes for spec in specs)
    data = reader.section(TAG, max_size=most)
    if len(data) < _COUNT.size:
        raise CodecError("tensors as they are, are truncated")
    (count,) = _COUNT.unpack_from(data)
    offset = _COUNT.size + 4 * count
    if count > len(specs) or len(data) < offset:
        raise CodecError("tensors as they are, are truncated")
    chosen = np.frombuffer(data, "<u4", count, _COUNT.size).tolist()
    if chosen != sorted(set(chosen)) or (chosen and chosen[-1] >= len(specs)):
        raise CodecError("tensors as they are, are not in order")
    found = [specs[i] for i in chosen]
    if len(data) != offset + sum(spec.nbytes for spec in found):
        raise CodecError("tensors as they are, have the wrong length")
    arrays = {}
    for spec in found:
        raw = np.frombuffer(data, np.uint8, spec.nbytes, offset)
        if spec.dtype == "bool" and raw.max(initial=0) > 1:
            raise CodecError(f"tensor {spec.name!r} holds bytes that are not bool")
        dtype = to_dtype(spec.dtype)
        arrays[spec.name] = raw.copy().view(dtype).reshape(spec.shape)
        offset += spec.nbytes
    return arrays
