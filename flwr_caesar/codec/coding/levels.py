"""Small signed integers in a frame, each tensor with its own frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import TensorSpec
from .parts import decode_parts, encode_parts
from .positions import encode_positions, read_positions
from .rans import MAX_CONTEXTS
from .values import unpack_signs

MAX_LIMIT = 255
_LARGE = 1 << 14
_MAX_TABLE = 1 << 12
_MAX_STATES = 1 << 17

Levels = np.ndarray[Any, np.dtype[np.int16]]


def _contexts(
    specs: Sequence[TensorSpec],
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], int]:
    tables = []
    count = 1
    for spec in specs:
        own = spec.size >= _LARGE and count < MAX_CONTEXTS
        tables.append(count if own else 0)
        count += own
    sizes = [spec.size for spec in specs]
    return np.repeat(np.array(tables, np.uint8), sizes), count


def pack_levels(
    levels: Levels, specs: Sequence[TensorSpec], limit: int
) -> list[Section]:
    """Return the sections of integers in ``[-limit, limit]``.

    From 16,384 integers on, ``SYM``: the symbols ``level + limit``, entropy-coded. The
    first 255 tensors of at least that many elements have a frequency table each, all
    others share one. Of fewer integers, where tables and coder states would weigh
    more: the positions of those that are not 0 (``POS``), their signs (``SIGN``), and
    their magnitudes less one as bytes (``MAG``).

    Parameters
    ----------
    levels : ndarray of int16, shape (n,)
        The integers of all tensors.
    specs : sequence of TensorSpec
        The tensors, `n` elements together.
    limit : int
        Largest magnitude, at most 255.
    """
    if len(levels) >= _LARGE:
        contexts, count = _contexts(specs)
        symbols = (levels + np.int16(limit)).view(np.uint16)
        return [Section("SYM", encode_parts(symbols, contexts, count), itemsize=1)]
    positions = np.flatnonzero(levels)
    present = levels[positions]
    magnitudes = (np.abs(present) - 1).astype(np.uint8)
    return [
        Section("POS", encode_positions(positions, len(levels))),
        Section("SIGN", np.packbits(present < 0).tobytes(), itemsize=1),
        Section("MAG", magnitudes.tobytes(), itemsize=1),
    ]


def unpack_levels(
    reader: FrameReader, specs: Sequence[TensorSpec], limit: int
) -> Levels:
    """Read what `pack_levels` wrote.

    Raises
    ------
    CodecError
        If a section is malformed, or a magnitude exceeds `limit`.
    """
    n = sum(spec.size for spec in specs)
    if n >= _LARGE:
        contexts, count = _contexts(specs)
        limit_bytes = 2 * n + _MAX_TABLE * count + _MAX_STATES
        data = reader.section("SYM", max_size=limit_bytes)
        symbols = decode_parts(data, contexts, count)
        levels: Levels = symbols.view(np.int16)
        levels -= np.int16(limit)
    else:
        positions = read_positions(reader, "POS", n)
        k = len(positions)
        negative = unpack_signs(reader.section("SIGN", size=(k + 7) // 8), k)
        present = np.ones(k, np.int16)
        present += np.frombuffer(reader.section("MAG", size=k), np.uint8)
        levels = np.zeros(n, np.int16)
        levels[positions] = np.where(negative, -present, present)
    if max(levels.max(initial=0), -levels.min(initial=0)) > limit:
        raise CodecError(f"a level exceeds {limit}")
    return levels
