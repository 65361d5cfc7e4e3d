"""Signed integers of any size as symbols of a small alphabet and raw bits."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from .errors import CodecError
from .layout import Array
from .positions import pack_bits, unpack_bits
from .rans import Symbols, decode_symbols, encode_symbols

_DIRECT = 64
_DIRECT_BITS = 6
_MANTISSA_BITS = 4
_MAX_BITS = 33
MAX_MAGNITUDE = (1 << 31) - 1
_CHUNK = 1 << 18
_HEAD = struct.Struct("<I")

Integers = np.ndarray[Any, np.dtype[np.int32]]
_Wide = np.ndarray[Any, np.dtype[np.int64]]
_Unsigned = np.ndarray[Any, np.dtype[np.uint32]]


def to_symbols(values: Integers) -> Symbols:
    """Map integers to symbols, small magnitudes one to one.

    With the zigzag ``u = 2 |v| - [v < 0]``: the symbol of ``u < 64`` is `u`; above,
    with ``e = floor(log2 u)``, it is ``64 + 16 (e - 6) + (u >> (e - 4)) % 16`` and the
    ``e - 4`` low bits of `u` are raw.

    Parameters
    ----------
    values : ndarray of int32, shape (n,)
        Magnitudes below 2^31.

    Returns
    -------
    ndarray of uint16, shape (n,)
        Symbols below 496.
    """
    symbols = np.empty(len(values), np.uint16)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        symbols[part] = _chunk_symbols(values[part])
    return symbols


def _chunk_symbols(values: Integers) -> Symbols:
    if -32 < int(values.min()) <= int(values.max()) < 32:
        return _narrow_zigzag(values.astype(np.int16))
    near = (values > -32) & (values < 32)
    symbols = _narrow_zigzag(np.where(near, values, 0).astype(np.int16))
    far = np.flatnonzero(~near)
    u = _zigzag(values[far]).astype(np.int64)
    e = _exponent(u)
    mantissa = (u >> (e - _MANTISSA_BITS)) & ((1 << _MANTISSA_BITS) - 1)
    symbols[far] = _DIRECT + ((e - _DIRECT_BITS) << _MANTISSA_BITS) + mantissa
    return symbols


def _narrow_zigzag(values: Array) -> Symbols:
    symbols = values << 1
    symbols ^= values >> 15
    return symbols.view(np.uint16)


def _zigzag(values: Integers) -> _Unsigned:
    folded = values << 1
    folded ^= values >> 31
    return folded.view(np.uint32)


def _exponent(u: _Wide) -> _Wide:
    return np.frexp(u.astype(np.float64))[1].astype(np.int64) - 1


def encode_integers(values: Integers, contexts: Array, num_contexts: int) -> bytes:
    """Entropy-code integers, each by the table of its context.

    Zigzag is ``2 v`` for ``v >= 0`` and ``-2 v - 1`` below. The raw bits follow the
    symbols, ordered by their number and then by position.

    Parameters
    ----------
    values : ndarray of int32, shape (n,)
        Magnitudes below 2^31.
    contexts : ndarray of uint8, shape (n,)
        Known to the decoder; values below `num_contexts`.
    num_contexts : int
        Number of tables, at most 256.
    """
    symbols = to_symbols(values)
    packed = encode_symbols(symbols, contexts, num_contexts)
    width = _raw_bits(symbols)
    raw = [pack_bits(_zigzag(values[width == w]), w) for w in _used_widths(width)]
    return b"".join([_HEAD.pack(len(packed)), packed, *raw])


def _raw_bits(symbols: Symbols) -> Array:
    """Return the raw bits of each symbol as uint8, 0 where there are none."""
    width = (symbols >> _MANTISSA_BITS).astype(np.uint8)
    width -= np.uint8((_DIRECT >> _MANTISSA_BITS) - _DIRECT_BITS + _MANTISSA_BITS)
    width[symbols < _DIRECT] = 0
    return width


def _used_widths(width: Array) -> list[int]:
    largest = int(width.max(initial=0))
    return [w for w in range(1, largest + 1) if (width == w).any()]


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
    symbols = decode_symbols(data[_HEAD.size : offset], contexts, num_contexts)
    values = (symbols >> 1).astype(np.int32) ^ -(symbols & 1).astype(np.int32)
    width = _raw_bits(symbols)
    if len(width) and int(width.max()) + _MANTISSA_BITS >= _MAX_BITS:
        raise CodecError("integers exceed 32 bits")
    for w in _used_widths(width):
        at = np.flatnonzero(width == w)
        length = (len(at) * w + 7) // 8
        low = unpack_bits(data[offset : offset + length], w, len(at))
        offset += length
        mantissa = symbols[at].astype(np.uint32) & ((1 << _MANTISSA_BITS) - 1)
        u = (mantissa | (1 << _MANTISSA_BITS)) << w
        u |= low.astype(np.uint32)
        values[at] = (u >> 1).view(np.int32) ^ -(u & 1).view(np.int32)
    if offset != len(data):
        raise CodecError("integers have trailing bytes")
    return values
