"""Signed integers as 128 symbols, so that tables of few of them stay short."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from .blocks import blocks
from .counts import Symbols
from .integers import Integers, to_symbols
from .positions import pack_bits, unpack_bits

_DIRECT, _DIRECT_BITS = 16, 4
_MANTISSA_BITS = 2
_OCTAVE = 1 << _MANTISSA_BITS
_MOST = (1 << 32) - 2

_Wide = np.ndarray[Any, np.dtype[np.int64]]


def _merged() -> Symbols:
    """Return the symbol for each of `integers.to_symbols`, which are finer."""
    fine = np.arange(512)
    u = np.where(fine < 64, fine, (16 + fine % 16) << (2 + (fine - 64) // 16).clip(0))
    octave = np.frexp(u.astype(np.float64))[1] - 1
    mantissa = (u >> (octave - _MANTISSA_BITS).clip(0)) % _OCTAVE
    far = _DIRECT + _OCTAVE * (octave - _DIRECT_BITS) + mantissa
    return np.where(u < _DIRECT, u, far).astype(np.uint16)


MERGED = _merged()
"""Of each symbol of `integers.to_symbols` the one here; it never falls."""


def to_compact(values: Array) -> tuple[Symbols, _Wide]:
    """Map integers to symbols, the smallest magnitudes one to one.

    With the zigzag ``u = 2 |v| - [v < 0]``: the symbol of ``u < 16`` is `u`; above,
    with ``e = floor(log2 u)``, it is ``16 + 4 (e - 4) + (u >> (e - 2)) % 4`` and the
    ``e - 2`` low bits of `u` are raw.

    Parameters
    ----------
    values : ndarray of int32, shape (n,)
        Magnitudes below 2^31.

    Returns
    -------
    symbols : ndarray of uint16, shape (n,)
        Below 128.
    far : ndarray of int64
        `u` of the symbols from 16 on, in order.
    """
    symbols = MERGED[to_symbols(values)]
    wide = values[symbols >= _DIRECT].astype(np.int64)
    return symbols, (wide << 1) ^ (wide >> 63)


def pack_raw(far: _Wide) -> bytes:
    """Return the raw bits, by their number and then in order."""
    widths = np.frexp(far.astype(np.float64))[1] - 1 - _MANTISSA_BITS
    return b"".join(
        pack_bits(far[widths == width] & ((1 << width) - 1), width)
        for width in np.unique(widths).tolist()
    )


def from_compact(symbols: Symbols, raw: bytes, offset: int) -> tuple[Integers, int]:
    """Return the integers of symbols, and the offset behind their raw bits.

    Raises
    ------
    CodecError
        If the raw bits are truncated, or an integer is -2^31.
    """
    values = np.empty(len(symbols), np.int32)
    for part in blocks(len(symbols)):
        near = symbols[part]
        values[part] = (near >> 1).astype(np.int32) ^ -(near & 1).astype(np.int32)
    at = np.flatnonzero(symbols >= _DIRECT)
    far = symbols[at].astype(np.int64) - _DIRECT
    widths = _DIRECT_BITS - _MANTISSA_BITS + (far >> _MANTISSA_BITS)
    for width in np.unique(widths).tolist():
        chosen = widths == width
        count = int(np.count_nonzero(chosen))
        end = offset + (count * width + 7) // 8
        if end > len(raw):
            raise CodecError("integers are truncated")
        u = (far[chosen] & (_OCTAVE - 1) | _OCTAVE) << width
        u |= unpack_bits(raw[offset:end], width, count).astype(np.int64)
        if int(u.max()) > _MOST:
            raise CodecError("an integer exceeds 2^31 - 1")
        values[at[chosen]] = ((u >> 1) ^ -(u & 1)).astype(np.int32)
        offset = end
    return values, offset
