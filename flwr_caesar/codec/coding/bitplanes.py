"""Unsigned codes of a few bits as planes: the i-th bits of all codes together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.errors import CodecError

Codes = np.ndarray[Any, np.dtype[np.uint8]]


def planes_size(count: int, bits: int) -> int:
    """Return the bytes of `count` codes of `bits` bits: whole bytes a plane."""
    return bits * ((count + 7) // 8)


def pack_planes(codes: Codes, bits: int) -> bytes:
    """Pack the `bits` low bits of each code, the most significant plane first."""
    planes = []
    for bit in reversed(range(bits)):
        planes.append(np.packbits(codes & np.uint8(1 << bit)).tobytes())
    return b"".join(planes)


def unpack_planes(data: bytes, count: int, bits: int) -> Codes:
    """Undo `pack_planes` for `count` codes.

    Raises
    ------
    CodecError
        If `data` is not exactly ``planes_size(count, bits)`` bytes long.
    """
    if len(data) != planes_size(count, bits):
        raise CodecError("bit planes have the wrong length")
    planes = np.frombuffer(data, np.uint8).reshape(bits, -1)
    codes = np.zeros(count, np.uint8)
    for plane in planes:
        codes <<= np.uint8(1)
        codes |= np.unpackbits(plane, count=count)
    return codes
