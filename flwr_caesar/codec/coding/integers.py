"""Signed integers of any size as symbols of a small alphabet and raw bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.vector import require_elements
from ..kernel import compiled, contiguous
from ..kernel.interface import Kernel
from .blocks import blocks
from .counts import Symbols
from .parts import decode_parts, encode_parts
from .positions import pack_bits, unpack_bits
from .tables import MAX_ALPHABET

_DIRECT = 64
_DIRECT_BITS = 6
_MANTISSA_BITS = 4
_OCTAVE = 1 << _MANTISSA_BITS
_MAX_BITS = 32
_KINDS = np.int16, np.int32
_MOST_OCTAVES = (MAX_ALPHABET - _DIRECT) >> _MANTISSA_BITS
_WIDTHS = np.arange(_MOST_OCTAVES) + _DIRECT_BITS - _MANTISSA_BITS
MAX_MAGNITUDE = (1 << 31) - 1
_HEAD = struct.Struct("<I")

Integers = np.ndarray[Any, np.dtype[np.int32]]
_Wide = np.ndarray[Any, np.dtype[np.int64]]


def to_symbols(values: Array) -> Symbols:
    """Map integers to symbols, small magnitudes one to one.

    With the zigzag ``u = 2 |v| - [v < 0]``: the symbol of ``u < 64`` is `u`; above,
    with ``e = floor(log2 u)``, it is ``64 + 16 (e - 6) + (u >> (e - 4)) % 16`` and the
    ``e - 4`` low bits of `u` are raw.

    Parameters
    ----------
    values : ndarray of int16 or int32, shape (n,)
        Magnitudes below 2^31.

    Returns
    -------
    ndarray of uint16, shape (n,)
        Symbols below 480.
    """
    symbols = np.empty(len(values), np.uint16)
    if (native := compiled()) is not None and values.dtype in _KINDS:
        native.symbols(contiguous(values), symbols, _MANTISSA_BITS)
        return symbols
    for part in blocks(len(values)):
        symbols[part] = _block_symbols(values[part])
    return symbols


def _block_symbols(values: Array) -> Symbols:
    if -32 < int(values.min()) <= int(values.max()) < 32:
        return _narrow_zigzag(values.astype(np.int16))
    symbols = np.empty(len(values), np.uint16)
    near = (values > -32) & (values < 32)
    symbols[:] = _narrow_zigzag(np.where(near, values, 0).astype(np.int16))
    far = np.flatnonzero(~near)
    u = _zigzag(values[far])
    e = _exponent(u)
    mantissa = (u >> (e - _MANTISSA_BITS)) & (_OCTAVE - 1)
    symbols[far] = _DIRECT + ((e - _DIRECT_BITS) << _MANTISSA_BITS) + mantissa
    return symbols


def _narrow_zigzag(values: Array) -> Symbols:
    symbols = values << 1
    symbols ^= values >> 15
    return symbols.view(np.uint16)


def _zigzag(values: Array) -> _Wide:
    wide = values.astype(np.int64)
    return (wide << 1) ^ (wide >> 63)


def _exponent(u: _Wide) -> _Wide:
    return np.frexp(u.astype(np.float64))[1].astype(np.int64) - 1


def encode_integers(
    values: Array,
    contexts: Array,
    num_contexts: int,
    *,
    symbols: Symbols | None = None,
    counts: Array | None = None,
) -> bytes:
    """Entropy-code integers, each by the table of its context.

    Zigzag is ``2 v`` for ``v >= 0`` and ``-2 v - 1`` below. The raw bits follow the
    symbols, ordered by their number and then by position.

    Parameters
    ----------
    values : ndarray of int16 or int32, shape (n,)
        Magnitudes below 2^31.
    contexts : ndarray of uint8, shape (n,)
        Known to the decoder; values below `num_contexts`.
    num_contexts : int
        Number of tables, at most 256.
    symbols, counts : ndarray, optional
        What `to_symbols` returns of the values and `counts.count_symbols` of these, if
        it is known.

    Raises
    ------
    CodecError
        If there are more than a frame holds.
    """
    require_elements(len(values))
    if symbols is None:
        symbols = to_symbols(values)
    packed = encode_parts(symbols, contexts, num_contexts, counts)
    raw = _raw(values, symbols) if counts is None or counts.shape[1] > _DIRECT else []
    return b"".join([_HEAD.pack(len(packed)), packed, *raw])


def _raw(values: Array, symbols: Symbols) -> list[bytes]:
    if (native := compiled()) is not None and values.dtype in _KINDS:
        starts = raw_starts(symbols, native, _MANTISSA_BITS)
        bits = np.empty(starts[-1], np.uint8)
        native.raw_bits(contiguous(values), symbols, starts, bits, _MANTISSA_BITS)
        return [bits.tobytes()]
    low: dict[int, list[Array]] = {first: [] for first in _octaves(symbols)}
    for part in blocks(len(symbols) if low else 0):
        u = values[part]
        for first, at in _far(symbols[part]):
            mask = (1 << _raw_bits(first)) - 1
            low[first].append((_zigzag(u[at]) & mask).astype(np.uint32))
    return [
        pack_bits(np.concatenate([np.empty(0, np.uint32), *found]), _raw_bits(first))
        for first, found in low.items()
    ]


def raw_starts(symbols: Symbols, native: Kernel, mantissa: int) -> Array:
    """Return at which byte the raw bits of each octave start, and where all end.

    Parameters
    ----------
    symbols : ndarray of uint16
        Of `to_symbols`, or of `compact_symbols.to_compact`.
    native : Kernel
        Which counts them.
    mantissa : int
        How many bits of a large integer a symbol tells, 4 or 2. Of either there are
        28 octaves, and the first has two raw bits.
    """
    counts = np.empty(_MOST_OCTAVES, np.int64)
    native.octaves(symbols, counts, mantissa)
    return _starts(counts)


def _starts(counts: Array) -> Array:
    starts = np.zeros(_MOST_OCTAVES + 1, np.int64)
    np.cumsum((counts * _WIDTHS + 7) // 8, out=starts[1:])
    return starts


def near_values(
    symbols: Symbols, native: Kernel, mantissa: int
) -> tuple[Integers, Array]:
    """Return integers as far as symbols tell them, and `raw_starts`."""
    values = np.empty(len(symbols), np.int32)
    counts = np.empty(_MOST_OCTAVES, np.int64)
    native.near(symbols, counts, values, mantissa)
    return values, _starts(counts)


def _octaves(symbols: Symbols) -> range:
    """Return the first symbol of each octave that has raw bits, up to the largest."""
    return range(_DIRECT, int(symbols.max(initial=0)) + 1, _OCTAVE)


def _far(symbols: Symbols) -> Iterator[tuple[int, Array]]:
    """Yield the first symbol of each octave with raw bits that occurs, and where."""
    far = np.flatnonzero(symbols >= _DIRECT)
    octaves = symbols[far] >> _MANTISSA_BITS
    for octave in np.flatnonzero(np.bincount(octaves)).tolist():
        yield octave << _MANTISSA_BITS, far.take(np.flatnonzero(octaves == octave))


def _counts(symbols: Symbols) -> list[int]:
    """Return how many symbols each of `_octaves` has."""
    first = _DIRECT >> _MANTISSA_BITS
    counts = np.zeros(first + len(_octaves(symbols)), np.int64)
    for part in blocks(len(symbols) if len(counts) > first else 0):
        found = symbols[part]
        far = found[found >= _DIRECT]
        counts += np.bincount(far >> _MANTISSA_BITS, minlength=len(counts))
    return counts[first:].tolist()  # type: ignore[no-any-return]


def _raw_bits(symbol: int) -> int:
    return ((symbol - _DIRECT) >> _MANTISSA_BITS) + _DIRECT_BITS - _MANTISSA_BITS


def count_raw_bits(counts: Array) -> int:
    """Return how many raw bits integers have, by how often each symbol occurs.

    Parameters
    ----------
    counts : ndarray of int64, shape (alphabet,)
        Of `to_symbols`.
    """
    far = counts[_DIRECT:].tolist()
    return sum(n * _raw_bits(symbol) for symbol, n in enumerate(far, _DIRECT))


def decode_integers(data: bytes, contexts: Array, num_contexts: int) -> Integers:
    """Decode what `encode_integers` wrote with the same contexts.

    Raises
    ------
    CodecError
        If the bytes are not exactly an encoding of that many integers.
    """
    if len(data) < _HEAD.size:
        raise CodecError("integers are truncated")
    (size,) = _HEAD.unpack_from(data)
    offset = _HEAD.size + size
    if offset > len(data):
        raise CodecError("integers are truncated")
    symbols = decode_parts(data[_HEAD.size : offset], contexts, num_contexts)
    if (native := compiled()) is not None:
        return _join(symbols, memoryview(data)[offset:], native)
    top = int(symbols.max(initial=0))
    if top >= _DIRECT and _raw_bits(top) + _MANTISSA_BITS >= _MAX_BITS:
        raise CodecError("integers exceed 32 bits")
    values = np.empty(len(symbols), np.int32)
    for part in blocks(len(symbols)):
        zigzag = symbols[part].view(np.int16)
        values[part] = (zigzag >> 1) ^ -(zigzag & 1)
    low: dict[int, Array] = {}
    for first, count in zip(_octaves(symbols), _counts(symbols), strict=True):
        width = _raw_bits(first)
        length = (count * width + 7) // 8
        low[first] = unpack_bits(data[offset : offset + length], width, count)
        offset += length
    for part in blocks(len(symbols) if low else 0):
        for first, at in _far(symbols[part]):
            found, low[first] = low[first][: len(at)], low[first][len(at) :]
            mantissa = symbols[part][at].astype(np.int64) & (_OCTAVE - 1)
            u = mantissa | _OCTAVE
            u = u << _raw_bits(first) | found.astype(np.int64)
            values[part][at] = ((u >> 1) ^ -(u & 1)).astype(np.int32)
    if offset != len(data):
        raise CodecError("integers have trailing bytes")
    return values


def _join(symbols: Symbols, bits: memoryview, native: Kernel) -> Integers:
    """Return the integers of symbols and of all raw bits."""
    values, starts = near_values(symbols, native, _MANTISSA_BITS)
    if starts[-1] > starts[_MAX_BITS - _DIRECT_BITS]:
        raise CodecError("integers exceed 32 bits")
    if starts[-1] > len(bits):
        raise CodecError("packed bits have the wrong length")
    if starts[-1] < len(bits):
        raise CodecError("integers have trailing bytes")
    if starts[-1]:
        native.far(symbols, starts, bits, values, _MANTISSA_BITS)
    return values


def compact(values: Integers) -> Array:
    """Return the values as int16 if these can hold them."""
    limits = np.iinfo(np.int16)
    fit = limits.min <= values.min(initial=0) <= values.max(initial=0) <= limits.max
    return values.astype(np.int16) if fit else values
