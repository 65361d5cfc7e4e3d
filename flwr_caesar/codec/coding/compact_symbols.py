"""Signed integers as 128 symbols, so that tables of few of them stay short."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..kernel import compiled, contiguous
from ..kernel.interface import Kernel
from .blocks import blocks
from .counts import Symbols
from .integers import Integers, near_values, to_symbols
from .positions import pack_bits, unpack_bits

_DIRECT, _DIRECT_BITS = 16, 4
_MANTISSA_BITS = 2
_OCTAVE = 1 << _MANTISSA_BITS
_FIRST_WIDTH, _LAST_WIDTH = 2, 29
_MOST = (1 << 32) - 2
_LEAST = -(1 << 31)
ALPHABET = 128

Far = np.ndarray[Any, np.dtype[np.uint32]]


@cache
def _merged() -> Symbols:
    """Return the symbol for each of `integers.to_symbols`, finer ones; it never falls.

    Made when it is first used: the kernel needs no such table.
    """
    fine = np.arange(512)
    u = np.where(fine < 64, fine, (16 + fine % 16) << (2 + (fine - 64) // 16).clip(0))
    octave = np.frexp(u.astype(np.float64))[1] - 1
    mantissa = (u >> (octave - _MANTISSA_BITS).clip(0)) % _OCTAVE
    far = _DIRECT + _OCTAVE * (octave - _DIRECT_BITS) + mantissa
    return np.where(u < _DIRECT, u, far).astype(np.uint16)


def _octaves() -> tuple[Array, Array]:
    symbols = np.arange(ALPHABET)
    widths = np.where(symbols < _DIRECT, 0, (symbols - _DIRECT) // _OCTAVE + 2)
    first = (_OCTAVE + symbols % _OCTAVE) << (widths - 1).clip(0)
    middle = first + (1 << (widths - 2).clip(0))
    return np.where(symbols < _DIRECT, (symbols + 1) // 2, middle), widths


MAGNITUDES, OCTAVES = _octaves()
"""Of each symbol the magnitude, or one in the middle of those; and its raw bits."""


def to_compact(values: Array) -> tuple[Symbols, Far]:
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
    far : ndarray of uint32
        `u` of the symbols from 16 on, in order.
    """
    if (native := compiled()) is not None and values.dtype == np.int32:
        symbols = np.empty(len(values), np.uint16)
        largest = native.symbols(contiguous(values), symbols, _MANTISSA_BITS)
    else:
        symbols = _merged()[to_symbols(values)]
        largest = int(symbols.max(initial=0))
    if largest < _DIRECT:
        return symbols, np.empty(0, np.uint32)
    wide = values[symbols >= _DIRECT].astype(np.int64)
    return symbols, ((wide << 1) ^ (wide >> 63)).astype(np.uint32)


def pack_raw(far: Sequence[Far]) -> bytes:
    """Return the raw bits of pieces, by their number and then in order."""
    u = np.concatenate([np.empty(0, np.uint32), *far])
    if not len(u):
        return b""
    widths = np.frexp(u.astype(np.float64))[1].astype(np.int8) - 1 - _MANTISSA_BITS
    found = []
    for width in np.flatnonzero(np.bincount(widths)).tolist():
        kind = np.uint16 if width <= 16 else np.uint32
        low = u[widths == width] & np.uint32((1 << width) - 1)
        found.append(pack_bits(low.astype(kind), width))
    return b"".join(found)


def from_compact(symbols: Symbols, raw: bytes, offset: int) -> tuple[Integers, int]:
    """Return the integers of symbols, and the offset behind their raw bits.

    Raises
    ------
    CodecError
        If the raw bits are truncated, or an integer is -2^31.
    """
    if (native := compiled()) is not None:
        return _joined(symbols, raw, offset, native)
    low: dict[int, Array] = {}
    for width, count in enumerate(_count_widths(symbols)):
        if count:
            end = offset + (count * width + 7) // 8
            if end > len(raw):
                raise CodecError("integers are truncated")
            low[width] = unpack_bits(raw[offset:end], width, count)
            offset = end
    read = dict.fromkeys(low, 0)
    values = np.empty(len(symbols), np.int32)
    for part in blocks(len(symbols)):
        near = symbols[part]
        sign = near & 1
        np.negative(sign, out=sign)
        found = (near >> 1 ^ sign).view(np.int16).astype(np.int32)
        at = np.flatnonzero(near >= _DIRECT)
        far = near[at].astype(np.int64) - _DIRECT
        widths = _FIRST_WIDTH + (far >> _MANTISSA_BITS)
        for width in np.unique(widths).tolist():
            chosen = np.flatnonzero(widths == width)
            start, read[width] = read[width], read[width] + len(chosen)
            u = (far[chosen] & (_OCTAVE - 1) | _OCTAVE) << width
            u |= low[width][start : read[width]].astype(np.int64)
            if int(u.max()) > _MOST:
                raise CodecError("an integer exceeds 2^31 - 1")
            found[at[chosen]] = ((u >> 1) ^ -(u & 1)).astype(np.int32)
        values[part] = found
    return values, offset


def _joined(
    symbols: Symbols, raw: bytes, offset: int, native: Kernel
) -> tuple[Integers, int]:
    values, starts = near_values(symbols, native, _MANTISSA_BITS)
    end = offset + int(starts[-1])
    if end > len(raw):
        raise CodecError("integers are truncated")
    if starts[-1]:
        native.far(symbols, starts, memoryview(raw)[offset:end], values, _MANTISSA_BITS)
    if starts[-1] > starts[-2] and int(values.min()) == _LEAST:
        raise CodecError("an integer exceeds 2^31 - 1")
    return values, end


def _count_widths(symbols: Symbols) -> list[int]:
    """Return how many symbols have raw bits of each number."""
    counts = np.zeros(_LAST_WIDTH + 1, np.int64)
    for part in blocks(len(symbols)):
        far = symbols[part][symbols[part] >= _DIRECT] - _DIRECT
        found = np.bincount(far >> _MANTISSA_BITS)
        counts[_FIRST_WIDTH : _FIRST_WIDTH + len(found)] += found
    return counts.tolist()
