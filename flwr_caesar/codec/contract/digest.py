"""The name of a model's content."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .layout import Array, Arrays, Layout, dtype_name, to_dtype


class NamedModel(dict[str, Array]):
    """A model whose digest was computed already; not to be changed.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The model.
    digest : bytes
        Its `model_digest`.
    """

    def __init__(self, arrays: Arrays, digest: bytes) -> None:
        super().__init__(arrays)
        self.digest = digest


def model_digest(arrays: Arrays, layout: Layout | None = None) -> bytes:
    """Return eight bytes that name the content of a model.

    CRC-32 then Adler-32, little-endian, of the tensor table and then of each tensor's
    little-endian bytes in its order. They tell versions apart; they are no signature.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The model; each array is read once.
    layout : Layout, optional
        Of the model, where it is known.
    """
    head = (layout or Layout.of(arrays)).to_bytes()
    crc, adler = zlib.crc32(head), zlib.adler32(head)
    for array in arrays.values():
        little = to_dtype(dtype_name(array.dtype))
        flat = np.ascontiguousarray(array, little).reshape(-1)
        data = flat.view(np.uint8).data
        crc, adler = zlib.crc32(data, crc), zlib.adler32(data, adler)
    return struct.pack("<II", crc, adler)


def digest_of(model: Arrays) -> bytes:
    """Return a model's digest, computed where it is not known."""
    return model.digest if isinstance(model, NamedModel) else model_digest(model)
