"""Interleaved range asymmetric numeral systems (rANS) with many lanes in lock-step.

Section 9 of `docs/wire-format.md` is the normative description of the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .errors import CodecError
from .layout import Array
from .tables import (
    MAX_ALPHABET,
    SCALE,
    SCALE_BITS,
    Codes,
    normalise,
    pack_tables,
    quantise_counts,
    unpack_tables,
)

MAX_CONTEXTS = 256
MAX_LANES = (1 << 16) - 1
MAX_ROWS = 1 << 11
_HEAD = struct.Struct("<QIHHHHI")
_LOW = 1 << 16
_BLOCK = 1 << 16
_BYTES_PER_LANE = 128
_WIDE_LANES = 1 << 11
_SMALL_LANES = 32

Symbols = np.ndarray[Any, np.dtype[np.uint16]]
Words = np.ndarray[Any, np.dtype[np.uint16]]
States = np.ndarray[Any, np.dtype[np.uint32]]


def count_symbols(symbols: Symbols, contexts: Array, num_contexts: int) -> Array:
    """Return how often each symbol occurs in each context, shape (contexts, 512)."""
    joint = np.zeros(num_contexts * MAX_ALPHABET, np.int64)
    for start in range(0, len(symbols), _BLOCK):
        stop = start + _BLOCK
        index = contexts[start:stop].astype(np.int64) * MAX_ALPHABET
        index += symbols[start:stop]
        joint += np.bincount(index, minlength=len(joint))
    return joint.reshape(num_contexts, MAX_ALPHABET)


def entropy_bits(counts: Array) -> float:
    """Return the order-0 entropy of all contexts together, in bits."""
    totals = counts.sum(axis=-1)
    return _sum_n_log_n(totals) - _sum_n_log_n(counts)


def _sum_n_log_n(counts: Array) -> float:
    n = counts[counts > 0].astype(np.float64)
    return float((n * np.log2(n)).sum())


def encode_symbols(symbols: Symbols, contexts: Array, num_contexts: int) -> bytes:
    """Entropy-code symbols, each by the table of its context.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
        Values below 512.
    contexts : ndarray of uint8, shape (n,)
        Values below `num_contexts`; the decoder must know them.
    num_contexts : int
        Number of tables, at most 256.

    Returns
    -------
    bytes
        Header, tables, states and words; from 10^6 symbols within 1 % of the
        empirical entropy given the contexts.

    References
    ----------
    Duda (2013), arXiv:1311.2540; Giesen (2014), arXiv:1402.3392.
    """
    n = len(symbols)
    counts = count_symbols(symbols, contexts, num_contexts)
    codes = quantise_counts(counts)
    tables = pack_tables(codes)
    bits = entropy_bits(counts)
    few, many, head = _plan_lanes(n, bits)
    table = _encoder_table(codes)
    words: list[Words] = []
    states = np.full(few, _LOW, np.uint32)
    _push(states, words, symbols[head:], contexts[head:], table)
    stack = np.concatenate([np.empty(0, np.uint16), *words[::-1]])
    stack = np.concatenate([_flush(states), stack])
    borrowed = 0
    if head:
        borrowed = min(many, len(stack))
        states = np.full(many, _LOW, np.uint32)
        states[:borrowed] += stack[:borrowed]
        words = []
        _push(states, words, symbols[:head], contexts[:head], table)
        stack = np.concatenate([_flush(states), *words[::-1], stack[borrowed:]])
    header = _HEAD.pack(n, head, many, few, borrowed, num_contexts, len(stack))
    return header + tables + stack.astype("<u2").tobytes()


def _plan_lanes(n: int, bits: float) -> tuple[int, int, int]:
    """Choose lanes of the short last part and the long first part, and its length."""
    lanes = min(int(bits / 8) // _BYTES_PER_LANE, _WIDE_LANES)
    least = -(-n // MAX_ROWS)
    lanes = max(lanes, least, 1)
    if lanes <= 2 * _SMALL_LANES or bits < 17 * lanes:
        return lanes, 1, 0
    few = max(_SMALL_LANES, lanes // 16)
    tail = min(int(lanes * 17 * n / bits) + few, few * MAX_ROWS, n)
    return few, lanes, n - tail


def _encoder_table(codes: Codes) -> States:
    table = np.zeros((len(codes), MAX_ALPHABET), np.uint32)
    for row, code in zip(table, codes, strict=True):
        if code.any():
            frequency = normalise(code)
            start = np.cumsum(frequency) - frequency
            row[: len(code)] = (frequency << 16) | (start & 0xFFFF)
    return table.reshape(-1)


def _push(
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Encode symbols, last row first, appending each row's words to `words`."""
    lanes = len(states)
    rows = max(_BLOCK // lanes, 1)
    bounds = [*range(0, len(symbols), rows * lanes), len(symbols)]
    quotient = np.empty(lanes, np.uint32)
    full = np.empty(lanes, bool)
    for start, stop in reversed(list(pairwise(bounds))):
        index = contexts[start:stop].astype(np.intp)
        index *= MAX_ALPHABET
        index += symbols[start:stop]
        packed = table[index]
        frequency = packed >> np.uint32(16)
        cumulative = packed & np.uint32(0xFFFF)
        limit = (frequency << np.uint32(32 - SCALE_BITS)) - np.uint32(1)
        rest = np.uint32(SCALE) - frequency
        first = (stop - start - 1) // lanes * lanes
        for a in range(first, -1, -lanes):
            b = min(a + lanes, stop - start)
            x, q, over = states[: b - a], quotient[: b - a], full[: b - a]
            np.greater(x, limit[a:b], out=over)
            lane = np.flatnonzero(over)
            if len(lane):
                large = x[lane]
                words.append(large.astype(np.uint16))
                x[lane] = large >> np.uint32(16)
            np.floor_divide(x, frequency[a:b], out=q)
            np.multiply(q, rest[a:b], out=q)
            np.add(x, cumulative[a:b], out=x)
            np.add(x, q, out=x)


def _flush(states: States) -> Words:
    """States as words: flags of four-byte states, low halves, third, fourth bytes."""
    high = states >> np.uint32(16)
    large = high > 0xFF
    flags = np.packbits(np.pad(large, (0, -len(states) % 16)))
    top = (high[large] >> np.uint32(8)).astype(np.uint8)
    upper = np.concatenate([high.astype(np.uint8), top])
    upper = np.pad(upper, (0, len(upper) % 2))
    words = [flags.view("<u2"), states.astype(np.uint16), upper.view("<u2")]
    return np.concatenate(words)


def decode_symbols(
    data: bytes, contexts: Array, num_contexts: int, *, offset: int = 0
) -> Symbols:
    """Decode what `encode_symbols` wrote with the same contexts.

    Parameters
    ----------
    data : bytes
        The encoding, from `offset` to the end.
    contexts : ndarray of uint8, shape (n,)
        Values below `num_contexts`.
    num_contexts : int
        Number of tables.
    offset : int
        Where the encoding starts in `data`.

    Returns
    -------
    ndarray of uint16, shape (n,)
        The symbols.

    Raises
    ------
    CodecError
        If the bytes are not exactly an encoding of that many symbols. Nothing larger
        than a few times the expected symbols is allocated, and each is decoded once.
    """
    if len(data) < offset + _HEAD.size:
        raise CodecError("symbols are truncated")
    n, head, many, few, borrowed, sent, count = _HEAD.unpack_from(data, offset)
    if (
        n != len(contexts)
        or sent != num_contexts
        or head > n
        or not 1 <= few <= MAX_LANES
        or not 1 <= many <= MAX_LANES
        or head > many * MAX_ROWS
        or n - head > few * MAX_ROWS
        or borrowed > (many if head else 0)
    ):
        raise CodecError("symbols have a malformed header")
    codes, offset = unpack_tables(data, offset + _HEAD.size, num_contexts)
    if len(data) - offset != 2 * count:
        raise CodecError("symbols have the wrong length")
    used = np.bincount(contexts, minlength=num_contexts) > 0
    if (used & ~codes.any(axis=1)).any():
        raise CodecError("symbols use a context without a table")
    stack: Words = np.frombuffer(data, "<u2", count, offset).astype(np.uint16)
    tables = _DecoderTables.of(codes, used)
    symbols = np.empty(n, np.uint16)
    if head:
        states, stack = _unflush(stack, many)
        position = _pull(states, stack, symbols[:head], contexts[:head], tables)
        states -= np.uint32(_LOW)
        if (states[:borrowed] >= _LOW).any() or states[borrowed:].any():
            raise CodecError("symbols end in a wrong state")
        lent = states[:borrowed].astype(np.uint16)
        stack = np.concatenate([lent, stack[position:]])
    states, stack = _unflush(stack, few)
    position = _pull(states, stack, symbols[head:], contexts[head:], tables)
    if position != len(stack) or (states != _LOW).any():
        raise CodecError("symbols end in a wrong state")
    return symbols


def _unflush(stack: Words, lanes: int) -> tuple[States, Words]:
    data = stack.astype("<u2").view(np.uint8)
    start = (lanes + 15) // 16 * 2
    large = np.unpackbits(data[:start]).astype(bool)
    upper = start + 2 * lanes
    count = int(large.sum())
    end = upper + lanes + count
    end += end % 2
    if end > len(data) or large[lanes:].any():
        raise CodecError("symbols are truncated")
    high = data[upper : upper + lanes].astype(np.uint32)
    top = data[upper + lanes : upper + lanes + count]
    high[large[:lanes]] |= top.astype(np.uint32) << np.uint32(8)
    states = stack[start // 2 : upper // 2] | (high << np.uint32(16))
    if (high == 0).any():
        raise CodecError("symbols start in a wrong state")
    return states, stack[end // 2 :]


@dataclass(frozen=True)
class _DecoderTables:
    """Where each context's row starts, and by slot: frequency and bias, and symbol."""

    rows: Array
    steps: States
    values: Symbols

    @classmethod
    def of(cls, codes: Codes, used: Array) -> _DecoderTables:
        """Build a row for each context that is used."""
        rows = (np.cumsum(used) - 1) << SCALE_BITS
        steps = np.empty((np.count_nonzero(used), SCALE), np.uint32)
        values = np.empty(steps.shape, np.uint16)
        for i, code in enumerate(codes[used]):
            frequency = normalise(code)
            start = np.cumsum(frequency) - frequency
            bias = np.arange(SCALE) - np.repeat(start, frequency)
            steps[i] = np.repeat(frequency << 16, frequency) | bias
            values[i] = np.repeat(np.arange(len(frequency)), frequency)
        return cls(rows, steps.reshape(-1), values.reshape(-1))


def _pull(
    states: States,
    words: Words,
    symbols: Symbols,
    contexts: Array,
    tables: _DecoderTables,
) -> int:
    """Decode into `symbols`, first row first; return how many words were read."""
    lanes = len(states)
    rows = max(_BLOCK // lanes, 1)
    position = 0
    wide = words.astype(np.uint32)
    slot = np.empty(lanes, np.uint32)
    packed = np.empty(lanes, np.uint32)
    short = np.empty(lanes, bool)
    for start in range(0, len(symbols), rows * lanes):
        stop = min(start + rows * lanes, len(symbols))
        index = tables.rows[contexts[start:stop]]
        for a in range(0, stop - start, lanes):
            b = min(a + lanes, stop - start)
            x, s, p, under = (v[: b - a] for v in (states, slot, packed, short))
            at = index[a:b]
            np.bitwise_and(x, np.uint32(SCALE - 1), out=s)
            np.add(at, s, out=at)
            np.take(tables.steps, at, out=p, mode="wrap")
            np.right_shift(x, np.uint32(SCALE_BITS), out=x)
            np.right_shift(p, np.uint32(16), out=s)
            np.multiply(x, s, out=x)
            np.bitwise_and(p, np.uint32(0xFFFF), out=p)
            np.add(x, p, out=x)
            np.less(x, np.uint32(_LOW), out=under)
            lane = np.flatnonzero(under)
            k = len(lane)
            if k:
                if position + k > len(wide):
                    raise CodecError("symbols are truncated")
                x[lane] = (x[lane] << np.uint32(16)) | wide[position : position + k]
                position += k
        np.take(tables.values, index, out=symbols[start:stop], mode="wrap")
    return position
