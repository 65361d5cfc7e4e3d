"""Interleaved range asymmetric numeral systems (rANS) with many lanes in lock-step.

Section 9 of `docs/wire-format.md` is the normative description of the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
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
_NARROW_LANES = 12
_SLOTS_PER_SYMBOL = 8
_FEW_SLOTS = 64 << SCALE_BITS

# Operands of no dimension: numpy takes twice as long to make one of a scalar.
_SLOT_MASK = np.array(SCALE - 1, np.uint32)
_SLOT_SHIFT = np.array(SCALE_BITS, np.uint32)
_WORD_SHIFT = np.array(16, np.uint32)
_WORD_MASK = np.array(0xFFFF, np.uint32)
_LEAST = np.array(_LOW, np.uint32)

Symbols = np.ndarray[Any, np.dtype[np.uint16]]
Words = np.ndarray[Any, np.dtype[np.uint16]]
States = np.ndarray[Any, np.dtype[np.uint32]]


def count_symbols(symbols: Symbols, contexts: Array, num_contexts: int) -> Array:
    """Return how often each symbol up to the largest occurs in each context.

    Returns
    -------
    ndarray of int64, shape (num_contexts, alphabet)
        The alphabet ends with the largest symbol.
    """
    alphabet = int(symbols.max(initial=0)) + 1
    joint = np.zeros(num_contexts * alphabet, np.int64)
    for start in range(0, len(symbols), _BLOCK):
        stop = start + _BLOCK
        index = contexts[start:stop].astype(np.int64)
        index *= alphabet
        index += symbols[start:stop]
        joint += np.bincount(index, minlength=len(joint))
    return joint.reshape(num_contexts, alphabet)


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
    del words
    header = _HEAD.pack(n, head, many, few, borrowed, num_contexts, len(stack))
    return b"".join([header, tables, stack.astype("<u2", copy=False).data])


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
    used = codes.any(axis=1)
    frequency = normalise(codes[used])
    start = np.cumsum(frequency, axis=1) - frequency
    table[used, : codes.shape[1]] = (frequency << 16) | (start & 0xFFFF)
    return table.reshape(-1)


def _push(
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Encode symbols, last row first, appending each row's words to `words`."""
    if len(states) <= _NARROW_LANES:
        _push_narrow(states, words, symbols, contexts, table)
        return
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
        frequency = packed >> _WORD_SHIFT
        cumulative = packed & _WORD_MASK
        limit = (frequency << np.uint32(32 - SCALE_BITS)) - np.uint32(1)
        rest = np.uint32(SCALE) - frequency
        first = (stop - start - 1) // lanes * lanes
        for a in range(first, -1, -lanes):
            b = min(a + lanes, stop - start)
            f = frequency[a:b]
            x, q, over = states, quotient, full
            if len(f) < lanes:
                x, q, over = (v[: len(f)] for v in (x, q, over))
            np.greater(x, limit[a:b], over)
            (lane,) = over.nonzero()
            if len(lane):
                large = x[lane]
                words.append(large.astype(np.uint16))
                x[lane] = large >> _WORD_SHIFT
            np.floor_divide(x, f, q)
            np.multiply(q, rest[a:b], q)
            np.add(x, cumulative[a:b], x)
            np.add(x, q, x)


def _push_narrow(
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Do what `_push` does, element by element."""
    lanes = len(states)
    x = states.tolist()
    last_first: list[int] = []
    packed = table[contexts.astype(np.intp) * MAX_ALPHABET + symbols].data
    for i in range(len(symbols) - 1, -1, -1):
        lane = i % lanes
        state = x[lane]
        frequency = packed[i] >> 16
        if state >= frequency << (32 - SCALE_BITS):
            last_first.append(state & 0xFFFF)
            state >>= 16
        quotient, remainder = divmod(state, frequency)
        x[lane] = (quotient << SCALE_BITS) + remainder + (packed[i] & 0xFFFF)
    states[:] = x
    words.append(np.array(last_first[::-1], np.uint16))


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
    tables = _DecoderTables.of(codes, used, n)
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
    """What each slot of each context stands for.

    Either a table with an entry for each slot, or, where these would be large beside
    the symbols, one for each symbol, found by bisection of the first slots.

    Parameters
    ----------
    rows : ndarray of int64, shape (contexts,)
        First slot of each context.
    firsts : ndarray of int64, shape (entries,), optional
        First slot of each entry; `None` if there is an entry for each slot.
    steps : ndarray of uint32, shape (entries,)
        Frequency in the upper half; in the lower one the slot's distance from the
        symbol's first, or 0 where `firsts` tells it.
    values : ndarray of uint16, shape (entries,)
        The symbol.
    """

    rows: Array
    firsts: Array | None
    steps: States
    values: Symbols

    @classmethod
    def of(cls, codes: Codes, used: Array, n: int) -> _DecoderTables:
        """Build the tables of the contexts that `n` symbols use."""
        rows = (np.cumsum(used) - 1) << SCALE_BITS
        slots = int(np.count_nonzero(used)) << SCALE_BITS
        frequencies = normalise(codes[used])
        contexts, symbols = np.nonzero(frequencies)
        widths = frequencies[contexts, symbols]
        values = symbols.astype(np.uint16)
        firsts = np.cumsum(widths) - widths
        steps = widths.astype(np.uint32) << np.uint32(16)
        if slots > max(_SLOTS_PER_SYMBOL * n, _FEW_SLOTS):
            return cls(rows, firsts, steps, values)
        steps -= (firsts % SCALE).astype(np.uint32)
        table = np.repeat(steps, widths).reshape(-1, SCALE)
        table += np.arange(SCALE, dtype=np.uint32)
        return cls(rows, None, table.reshape(-1), np.repeat(values, widths))

    def look_up(self, slots: Array, steps: States) -> None:
        """Fill `steps`, and turn `slots` into the entries of `values`."""
        if self.firsts is None:
            self.steps.take(slots, None, steps, "wrap")
            return
        entries = np.searchsorted(self.firsts, slots, side="right") - 1
        steps[:] = slots - self.firsts[entries]
        steps |= self.steps[entries]
        slots[:] = entries


def _pull(
    states: States,
    words: Words,
    symbols: Symbols,
    contexts: Array,
    tables: _DecoderTables,
) -> int:
    """Decode into `symbols`, first row first; return how many words were read."""
    if len(states) <= _NARROW_LANES and tables.firsts is None:
        return _pull_narrow(states, words, symbols, contexts, tables)
    lanes = len(states)
    rows = max(_BLOCK // lanes, 1)
    position = 0
    wide = words.astype(np.uint32)
    x, s, p = states, np.empty(lanes, np.uint32), np.empty(lanes, np.uint32)
    under = np.empty(lanes, bool)
    for start in range(0, len(symbols), rows * lanes):
        stop = min(start + rows * lanes, len(symbols))
        index = tables.rows[contexts[start:stop]]
        for a in range(0, stop - start, lanes):
            at = index[a : a + lanes]
            if len(at) < lanes:
                x, s, p, under = (v[: len(at)] for v in (x, s, p, under))
            np.bitwise_and(x, _SLOT_MASK, s)
            np.add(at, s, at)
            tables.look_up(at, p)
            np.right_shift(x, _SLOT_SHIFT, x)
            np.right_shift(p, _WORD_SHIFT, s)
            np.multiply(x, s, x)
            np.bitwise_and(p, _WORD_MASK, p)
            np.add(x, p, x)
            np.less(x, _LEAST, under)
            (lane,) = under.nonzero()
            k = len(lane)
            if k:
                if position + k > len(wide):
                    raise CodecError("symbols are truncated")
                x[lane] = (x[lane] << _WORD_SHIFT) | wide[position : position + k]
                position += k
        np.take(tables.values, index, out=symbols[start:stop], mode="wrap")
    return position


def _pull_narrow(
    states: States,
    words: Words,
    symbols: Symbols,
    contexts: Array,
    tables: _DecoderTables,
) -> int:
    """Do what `_pull` does, element by element: rows too short to work on as arrays."""
    lanes, count = len(states), len(words)
    position = 0
    x = states.tolist()
    word, step = words.data, tables.steps.data
    index = tables.rows[contexts]
    entry = index.data
    for i in range(len(symbols)):
        lane = i % lanes
        state = x[lane]
        entry[i] = at = entry[i] + state % SCALE
        packed = step[at]
        state = (packed >> 16) * (state >> SCALE_BITS) + (packed & 0xFFFF)
        if state < _LOW:
            if position == count:
                raise CodecError("symbols are truncated")
            state = state << 16 | word[position]
            position += 1
        x[lane] = state
    states[:] = x
    np.take(tables.values, index, out=symbols, mode="wrap")
    return position
