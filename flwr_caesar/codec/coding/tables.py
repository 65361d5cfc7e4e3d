"""Frequency tables of the entropy coder: a few bits a symbol, integers only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from .positions import best_rice, pack_bits, unpack_bits

SCALE_BITS = 14
SCALE = 1 << SCALE_BITS
MAX_ALPHABET = 512
MAX_CODE = 136
_MAX_WEIGHT = 15 << 16

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.uint8]]
Frequencies = np.ndarray[Any, np.dtype[np.int64]]

_HEAD = struct.Struct("<BII")
_CODES = np.arange(MAX_CODE)
_WEIGHTS = np.concatenate([[0], (8 + _CODES % 8) << (_CODES // 8)])


def quantise_counts(counts: Counts) -> Codes:
    """Write each count as a weight of four significant bits.

    Code 0 is a symbol that never occurs; code ``c`` from 1 to 136 is the weight
    ``(8 + (c - 1) % 8) << ((c - 1) // 8)``, so that weights span 1 : 120,000 within
    about 6 % of the true ratio, which costs about 0.001 bits a symbol.

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
    """Turn each context's weight codes into frequencies that sum to 2^14.

    ``f_i = max(1, (2 w_i S + W) // (2 W))`` for ``w_i > 0`` with ``S = 2^14`` and
    ``W = sum(w)``, 0 otherwise. What the sum lacks is added to the largest frequency;
    what it has too much is taken from the largest, leaving at least 1, then from the
    largest of what results, and so on. Of equals the first is the largest.

    Parameters
    ----------
    codes : ndarray of uint8, shape (contexts, alphabet)
        In each row at least one that is not 0, none above 136, and at most 512.

    Returns
    -------
    ndarray of int64, shape (contexts, alphabet)
        Frequencies.
    """
    weights = _WEIGHTS[codes]
    total = weights.sum(axis=1, keepdims=True)
    frequencies: Frequencies = (2 * weights * SCALE + total) // (2 * total)
    frequencies[(weights > 0) & (frequencies == 0)] = 1
    excesses = frequencies.sum(axis=1) - SCALE
    for row in np.flatnonzero(excesses):
        excess = int(excesses[row])
        while excess:
            i = int(frequencies[row].argmax())
            step = min(excess, int(frequencies[row, i]) - 1)
            frequencies[row, i] -= step
            excess -= step
    return frequencies


def pack_tables(codes: Codes) -> bytes:
    """Serialise weight codes as Rice-coded differences between neighbours.

    Of each context the number of codes up to the last that is not 0 is written, then
    each of these as its zigzag difference from the code of the same symbol in the
    last non-empty context before, or, where that has none, from the code before it
    (128 for the first).
    """
    sizes, zigzag = differences(codes)
    k = min(best_rice(zigzag)[0], 7)
    ends = np.cumsum((zigzag >> k) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    bits = np.packbits(unary).tobytes()
    low = pack_bits(zigzag & ((1 << k) - 1), k)
    head = struct.pack(f"<{len(sizes)}H", *sizes)
    return head + _HEAD.pack(k, len(bits), len(low)) + bits + low


def differences(codes: Codes) -> tuple[list[int], Counts]:
    """Return the size of each table, and the zigzags of all differences."""
    sizes = [int(row.nonzero()[0][-1]) + 1 if row.any() else 0 for row in codes]
    parts = [
        row[:size].astype(np.int64) - _predict(row, size, before)
        for row, size, before in _with_neighbour(codes, sizes)
    ]
    delta = np.concatenate([np.empty(0, np.int64), *parts])
    return sizes, np.where(delta < 0, -2 * delta - 1, 2 * delta)


def _with_neighbour(codes: Codes, sizes: list[int]) -> list[tuple[Codes, int, Codes]]:
    rows = []
    before = np.empty(0, np.uint8)
    for row, size in zip(codes, sizes, strict=True):
        if size:
            rows.append((row, size, before))
            before = row[:size]
    return rows


def _predict(row: Codes, size: int, before: Codes) -> Array:
    guess = np.concatenate([[128], row[: size - 1]]).astype(np.int64)
    shared = min(size, len(before))
    guess[:shared] = before[:shared]
    return guess


def unpack_tables(data: bytes, offset: int, contexts: int) -> tuple[Codes, int]:
    """Read what `pack_tables` wrote; return the codes and the offset behind them.

    Raises
    ------
    CodecError
        If the bytes are not the tables of `contexts` contexts.
    """
    head = 2 * contexts + _HEAD.size
    if len(data) < offset + head:
        raise CodecError("symbol tables are truncated")
    sizes = struct.unpack_from(f"<{contexts}H", data, offset)
    k, unary_size, low_size = _HEAD.unpack_from(data, offset + 2 * contexts)
    total, widest = sum(sizes), max(sizes, default=0)
    offset += head
    end = offset + unary_size + low_size
    if k > 7 or widest > MAX_ALPHABET or unary_size > 64 * total or end > len(data):
        raise CodecError("symbol tables are malformed")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, unary_size, offset))
    ones = np.flatnonzero(bits)
    if len(ones) != total:
        raise CodecError("symbol tables are malformed")
    low = unpack_bits(data[offset + unary_size : end], k, total).astype(np.int64)
    zigzag = ((np.diff(ones, prepend=-1) - 1) << k) | low
    return checked_codes(sizes, zigzag), end


def checked_codes(sizes: Sequence[int], zigzag: Counts) -> Codes:
    """Return the codes that `differences` was given.

    Raises
    ------
    CodecError
        If one is no code, or the last of a table is 0.
    """
    delta = (zigzag >> 1) ^ -(zigzag & 1)
    codes = np.zeros((len(sizes), max(*sizes, 1)), np.uint8)
    before: Array = np.empty(0, np.int64)
    start = 0
    for row, size in zip(codes, sizes, strict=True):
        if not size:
            continue
        part = delta[start : start + size]
        start += size
        shared = min(size, len(before))
        whole = np.empty(size, np.int64)
        whole[:shared] = before[:shared] + part[:shared]
        last = whole[shared - 1] if shared else 128
        whole[shared:] = last + np.cumsum(part[shared:])
        if whole.min() < 0 or whole.max() > MAX_CODE or whole[-1] == 0:
            raise CodecError("symbol tables are malformed")
        row[:size] = before = whole
    return codes
