"""Flower's arrays, in numpy's file format, without copying their elements twice.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html has the format.
Only what numpy itself writes of plain arrays is read here; all else goes to Flower.
"""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array

_STYPE = "numpy.ndarray"
_MAGIC = b"\x93NUMPY\x01\x00"
_HEAD = re.compile(
    rb"\{'descr': '([<|](?:[fiub][1248]|V2))', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)
_HEAD_STARTS = len(_MAGIC) + 2


def to_flower(array: np.ndarray[Any, Any]) -> Array:
    """Return the Flower Array of an array, in the same bytes as ``Array(array)``."""
    if not array.flags.c_contiguous or array.dtype.kind not in "fiub":
        return Array(array)
    head, dtype = _head(array.dtype, array.shape)
    elements = array.reshape(-1).view(np.uint8).data
    return Array(dtype, array.shape, _STYPE, b"".join([head, elements]))


@lru_cache(maxsize=1024)
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, str]:
    """Return what stands before the elements, and what Flower calls the dtype.

    Each message is of the same tensors, and numpy writes a head in the time in which
    it copies a small one.
    """
    head = io.BytesIO()
    facts = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
    np.lib.format.write_array_header_1_0(head, {**facts, "shape": shape})
    return head.getvalue(), str(dtype)


def from_flower(array: Array) -> np.ndarray[Any, Any]:
    """Return the array in a Flower Array, as a view of its bytes if that is possible.

    A view cannot be written to.

    Raises
    ------
    TypeError, ValueError, EOFError, OSError, MemoryError
        As ``Array.numpy`` does, if it is malformed or not numpy's.
    """
    found = _view(array.data) if array.stype == _STYPE else None
    return array.numpy() if found is None else found


def _view(data: bytes) -> np.ndarray[Any, Any] | None:
    if not data.startswith(_MAGIC):
        return None
    starts = _HEAD_STARTS + int.from_bytes(data[len(_MAGIC) : _HEAD_STARTS], "little")
    head = _HEAD.fullmatch(data[_HEAD_STARTS:starts])
    if head is None:
        return None
    try:
        dtype = np.dtype(head[1].decode())
    except TypeError:
        return None
    shape = tuple(int(length) for length in head[3].split(b",") if length.strip())
    if not 0 < math.prod(shape) * dtype.itemsize == len(data) - starts:
        return None
    flat = np.frombuffer(data, dtype, offset=starts)
    by_columns = head[2] == b"True"
    return flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)
