"""Entropy-coded symbols of any number, in parts where they are too many for one.

A stream has at most 2^16 - 1 lanes of 2,048 rows. More symbols are several streams.
"""

from __future__ import annotations

import struct

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from .blocks import blocks
from .counts import Symbols
from .rans import MAX_ROWS, decode_symbols, encode_symbols

MOST_SYMBOLS = MAX_ROWS * 0xFFFF
"""Most symbols of a stream that is not in parts."""
PART = 1 << 26
"""Symbols of each part but the last."""
_SIZE = struct.Struct("<Q")


def encode_parts(
    symbols: Symbols,
    contexts: Array,
    num_contexts: int,
    counts: Array | None = None,
) -> bytes:
    """Entropy-code symbols; see `encode_symbols`.

    More than `MOST_SYMBOLS` are coded `PART` at a time, each behind its length in
    bytes (uint64).
    """
    if len(symbols) <= MOST_SYMBOLS:
        return encode_symbols(symbols, contexts, num_contexts, counts)
    pieces = []
    for part in blocks(len(symbols), PART):
        data = encode_symbols(symbols[part], contexts[part], num_contexts)
        pieces += [_SIZE.pack(len(data)), data]
    return b"".join(pieces)


def decode_parts(data: bytes, contexts: Array, num_contexts: int) -> Symbols:
    """Decode what `encode_parts` wrote with the same contexts; see `decode_symbols`.

    Raises
    ------
    CodecError
        If the bytes are not exactly an encoding of that many symbols.
    """
    if len(contexts) <= MOST_SYMBOLS:
        return decode_symbols(data, contexts, num_contexts)
    symbols = np.empty(len(contexts), np.uint16)
    offset = 0
    for part in blocks(len(contexts), PART):
        if len(data) < offset + _SIZE.size:
            raise CodecError("symbols are truncated")
        start = offset + _SIZE.size
        offset = start + int(_SIZE.unpack_from(data, offset)[0])
        if offset > len(data):
            raise CodecError("symbols are truncated")
        symbols[part] = decode_symbols(data[start:offset], contexts[part], num_contexts)
    if offset != len(data):
        raise CodecError("symbols have trailing bytes")
    return symbols
