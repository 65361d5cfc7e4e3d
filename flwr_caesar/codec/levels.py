"""Small signed integers in a frame: where, which sign, how large."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import CodecError
from .frame import FrameReader, Section
from .layout import Array
from .positions import decode_positions, encode_positions, max_positions_bytes
from .values import pack_signs, unpack_signs

Levels = np.ndarray[Any, np.dtype[np.int16]]


def pack_levels(levels: Array, limit: int) -> list[Section]:
    """Return the sections of integers in ``[-limit, limit]``.

    The positions of the non-zero ones (``POS``), their signs (``SIGN``), and, where
    `limit` exceeds 1, their magnitudes less one as bytes (``MAG``).

    Parameters
    ----------
    levels : ndarray of int16, shape (n,)
        The integers.
    limit : int
        Largest magnitude, at most 255.
    """
    positions = np.flatnonzero(levels)
    present = levels[positions]
    sections = [
        Section("POS", encode_positions(positions, len(levels))),
        Section("SIGN", pack_signs(present), itemsize=1),
    ]
    if limit > 1:
        magnitudes = (np.abs(present) - 1).astype(np.uint8)
        sections.append(Section("MAG", magnitudes.tobytes(), itemsize=1))
    return sections


def unpack_levels(reader: FrameReader, n: int, limit: int) -> Levels:
    """Read what `pack_levels` wrote for `n` integers.

    Raises
    ------
    CodecError
        If a section is malformed, or a magnitude exceeds `limit`.
    """
    packed = reader.section("POS", max_size=max_positions_bytes(n))
    positions = decode_positions(packed, n)
    k = len(positions)
    negative = unpack_signs(reader.section("SIGN", size=(k + 7) // 8), k)
    present = np.ones(k, np.int16)
    if limit > 1:
        present += np.frombuffer(reader.section("MAG", size=k), np.uint8)
    if k and int(present.max()) > limit:
        raise CodecError(f"a level exceeds {limit}")
    np.negative(present, out=present, where=negative)
    levels = np.zeros(n, np.int16)
    levels[positions] = present
    return levels
