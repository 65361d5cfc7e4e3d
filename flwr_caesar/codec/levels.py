"""Small signed integers in a frame, each tensor with its own frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import CodecError
from .frame import FrameReader, Section
from .layout import TensorSpec
from .rans import MAX_CONTEXTS, decode_symbols, encode_symbols

MAX_LIMIT = 255
_OWN_TABLE = 1 << 14

Levels = np.ndarray[Any, np.dtype[np.int16]]


def _contexts(
    specs: Sequence[TensorSpec],
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], int]:
    tables = []
    count = 1
    for spec in specs:
        own = spec.size >= _OWN_TABLE and count < MAX_CONTEXTS
        tables.append(count if own else 0)
        count += own
    sizes = [spec.size for spec in specs]
    return np.repeat(np.array(tables, np.uint8), sizes), count


def pack_levels(levels: Levels, specs: Sequence[TensorSpec], limit: int) -> Section:
    """Return the section ``SYM`` of integers in ``[-limit, limit]``.

    The symbols ``level + limit`` are entropy-coded. The first 255 tensors of at least
    16,384 elements have a frequency table each, all others share one.

    Parameters
    ----------
    levels : ndarray of int16, shape (n,)
        The integers of all tensors.
    specs : sequence of TensorSpec
        The tensors, `n` elements together.
    limit : int
        Largest magnitude, at most 255.
    """
    contexts, count = _contexts(specs)
    symbols = (levels + np.int16(limit)).view(np.uint16)
    return Section("SYM", encode_symbols(symbols, contexts, count))


def max_levels_bytes(n: int, count: int) -> int:
    """Return the most bytes accepted for `n` levels with `count` tables."""
    return 2 * n + 4096 * count + (1 << 17)


def unpack_levels(
    reader: FrameReader, specs: Sequence[TensorSpec], limit: int
) -> Levels:
    """Read what `pack_levels` wrote.

    Raises
    ------
    CodecError
        If the section is malformed, or a magnitude exceeds `limit`.
    """
    contexts, count = _contexts(specs)
    data = reader.section("SYM", max_size=max_levels_bytes(len(contexts), count))
    symbols = decode_symbols(data, contexts, count)
    if symbols.max(initial=0) > 2 * limit:
        raise CodecError(f"a level exceeds {limit}")
    levels: Levels = symbols.view(np.int16)
    levels -= np.int16(limit)
    return levels
