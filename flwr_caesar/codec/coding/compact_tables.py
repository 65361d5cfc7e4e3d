"""Frequency tables of few symbols, in fewer bytes than `tables.pack_tables` takes."""

from __future__ import annotations

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from .positions import pack_bits, unpack_bits
from .tables import Codes, checked_codes, differences

ALPHABET = 128
"""Symbols of `compact_symbols`."""

_MOST_ZEROS = 64


def pack_compact_tables(codes: Codes) -> bytes:
    """Serialise weight codes (`tables.quantise_counts`).

    The differences of `tables.pack_tables`, with a byte for the size of each table, one
    for the low bits `k`, and the two parts, whose lengths follow from their content.

    Parameters
    ----------
    codes : ndarray of uint8, shape (contexts, alphabet)
        Of an alphabet of at most 128 symbols.
    """
    sizes, zigzag = differences(codes)
    k = min(range(8), key=lambda k: int((zigzag >> k).sum()) + k * len(zigzag))
    ends = np.cumsum((zigzag >> k) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    low = pack_bits(zigzag & ((1 << k) - 1), k)
    return bytes([*sizes, k]) + np.packbits(unary).tobytes() + low


def unpack_compact_tables(data: bytes, offset: int, contexts: int) -> tuple[Codes, int]:
    """Read what `pack_compact_tables` wrote; return the codes and the offset behind.

    Raises
    ------
    CodecError
        If the bytes are not the tables of `contexts` contexts.
    """
    start = offset + contexts + 1
    if len(data) < start:
        raise CodecError("symbol tables are truncated")
    sizes, k = list(data[offset : start - 1]), data[start - 1]
    total = sum(sizes)
    if k > 7 or max(sizes, default=0) > ALPHABET:
        raise CodecError("symbol tables are malformed")
    room = min(len(data) - start, _MOST_ZEROS * total)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, room, start)))
    ones = ones[:total]
    if len(ones) != total:
        raise CodecError("symbol tables are truncated")
    middle = start + (int(ones[-1]) // 8 + 1 if total else 0)
    end = middle + (k * total + 7) // 8
    if end > len(data):
        raise CodecError("symbol tables are truncated")
    low = unpack_bits(data[middle:end], k, total).astype(np.int64)
    zigzag: Array = ((np.diff(ones, prepend=-1) - 1) << k) | low
    return checked_codes(sizes, zigzag), end
