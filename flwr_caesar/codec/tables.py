"""Frequency tables of the entropy coder: one byte a symbol, normalised in integers."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from .errors import CodecError

SCALE_BITS = 14
SCALE = 1 << SCALE_BITS
MAX_ALPHABET = 512
_MANTISSA = 16
_MAX_WEIGHT = 31 << 15

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.uint8]]
Frequencies = np.ndarray[Any, np.dtype[np.int64]]

_CODES = np.arange(255)
_WEIGHTS = np.concatenate([[0], (_MANTISSA + _CODES % 16) << (_CODES // 16)])


def quantise_counts(counts: Counts) -> Codes:
    """Write each count as a weight of five significant bits.

    Code 0 is a symbol that never occurs; code ``c`` from 1 to 255 is the weight
    ``(16 + (c - 1) % 16) << ((c - 1) // 16)``, so that weights span 1 : 65,000 within
    about 3 % of the true ratio.

    Parameters
    ----------
    counts : ndarray of int64, shape (contexts, alphabet)
        Occurrences.

    Returns
    -------
    ndarray of uint8, shape (contexts, alphabet)
        The codes; a positive count never becomes 0.
    """
    largest = np.maximum(counts.max(axis=1, keepdims=True), 1)
    scaled = counts * (_MAX_WEIGHT / largest)
    edges = np.sqrt(_WEIGHTS[1:-1].astype(np.float64) * _WEIGHTS[2:])
    codes = np.searchsorted(edges, scaled) + 1
    return np.where(counts > 0, codes, 0).astype(np.uint8)


def normalise(codes: Codes) -> Frequencies:
    """Turn one context's weight codes into frequencies that sum to 2^14.

    ``f_i = max(1, (2 w_i S + W) // (2 W))`` for ``w_i > 0`` with ``S = 2^14`` and
    ``W = sum(w)``, 0 otherwise. What the sum lacks is added to the largest frequency;
    what it has too much is taken from the largest, leaving at least 1, then from the
    largest of what results, and so on. Of equals the first is the largest.

    Parameters
    ----------
    codes : ndarray of uint8, shape (alphabet,)
        At least one of them not 0, and at most 512.

    Returns
    -------
    ndarray of int64, shape (alphabet,)
        Frequencies.
    """
    weights = _WEIGHTS[codes]
    total = int(weights.sum())
    frequencies = (2 * weights * SCALE + total) // (2 * total)
    frequencies[(weights > 0) & (frequencies == 0)] = 1
    excess = int(frequencies.sum()) - SCALE
    while excess:
        i = int(frequencies.argmax())
        step = min(excess, int(frequencies[i]) - 1)
        frequencies[i] -= step
        excess -= step
    return frequencies


def pack_tables(codes: Codes) -> bytes:
    """Serialise weight codes: per context their number (uint16), then the codes."""
    parts = []
    for row in codes:
        used = np.flatnonzero(row)
        size = int(used[-1]) + 1 if len(used) else 0
        parts.append(struct.pack("<H", size) + row[:size].tobytes())
    return b"".join(parts)


def unpack_tables(data: bytes, offset: int, contexts: int) -> tuple[Codes, int]:
    """Read what `pack_tables` wrote; return the codes and the offset behind them.

    Raises
    ------
    CodecError
        If the bytes are not the tables of `contexts` contexts.
    """
    rows = []
    for _ in range(contexts):
        if offset + 2 > len(data):
            raise CodecError("symbol tables are truncated")
        (size,) = struct.unpack_from("<H", data, offset)
        offset += 2
        row = np.frombuffer(data[offset : offset + size], np.uint8)
        if len(row) != size or size > MAX_ALPHABET or (size and row[-1] == 0):
            raise CodecError("symbol tables are malformed")
        offset += size
        rows.append(row)
    codes = np.zeros((contexts, max((len(r) for r in rows), default=0)), np.uint8)
    for i, row in enumerate(rows):
        codes[i, : len(row)] = row
    return codes, offset
