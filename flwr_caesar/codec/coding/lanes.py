"""The states of interleaved rANS: lanes that take symbols in turn.

A lane's state `x` is from 2^16 up to 2^32. Coding a symbol of frequency `f` and first
slot `c`, out of ``SCALE`` slots, makes it ``x // f * SCALE + c + x % f``, about
``SCALE / f`` times as large; decoding reverses that. A state that would reach 2^32
gives its lower 16 bits away first, as a word; one that falls below 2^16 takes one back.
A coder is a stack, so the encoder goes from the last symbol to the first.

The loops below run once for each row, a symbol of every lane. All lanes take the same
steps at a time, so that numpy works on rows instead of Python on symbols. Where there
is a compiled kernel, its loops are the ones that run.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..kernel import compiled, contiguous
from ..kernel.interface import Kernel
from .blocks import blocks
from .counts import Symbols
from .tables import MAX_ALPHABET, SCALE, SCALE_BITS, Codes, normalise

LOWEST = 1 << 16
"""The least state between two symbols, and where an encoder starts."""

_LITTLE = sys.byteorder == "little"
_BLOCK = 1 << 16
_ROOM = 1 << 19
_NARROW_LANES = 12
_NARROW_BISECTED_LANES = 8
_SLOTS_PER_SYMBOL = 8
_FEW_SLOTS = 64 << SCALE_BITS

# Operands of no dimension: numpy takes twice as long to make one of a scalar.
_SLOT_MASK = np.array(SCALE - 1, np.uint32)
_SLOT_SHIFT = np.array(SCALE_BITS, np.uint32)
_WORD_SHIFT = np.array(16, np.uint32)
_WORD_MASK = np.array(0xFFFF, np.uint32)
_LEAST = np.array(LOWEST, np.uint32)

Words = np.ndarray[Any, np.dtype[np.uint16]]
States = np.ndarray[Any, np.dtype[np.uint32]]


def encoder_table(codes: Codes) -> States:
    """Return frequency and first slot of each symbol in each context, in one word.

    Returns
    -------
    ndarray of uint32, shape (contexts * MAX_ALPHABET,)
        The frequency in the upper half, the first slot in the lower one.
    """
    table = np.zeros((len(codes), MAX_ALPHABET), np.uint32)
    used = codes.any(axis=1)
    frequency = normalise(codes[used])
    start = np.cumsum(frequency, axis=1) - frequency
    table[used, : codes.shape[1]] = (frequency << 16) | (start & 0xFFFF)
    return table.reshape(-1)


def push(
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Encode symbols, last row first, appending each row's words to `words`."""
    if (native := compiled()) is not None:
        _push_compiled(native, states, words, symbols, contexts, table)
        return
    if len(states) <= _NARROW_LANES:
        _push_narrow(states, words, symbols, contexts, table)
        return
    lanes = len(states)
    rows = max(_BLOCK // lanes, 1)
    bounds = [*range(0, len(symbols), rows * lanes), len(symbols)]
    quotient = np.empty(lanes, np.uint32)
    full = np.empty(lanes, bool)
    # What does not depend on states is looked up for many rows at a time, from the last
    # to the first: the decoder pops what was pushed last.
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
            if len(f) < lanes:  # the last row, which need not be whole
                x, q, over = (v[: len(f)] for v in (x, q, over))
            np.greater(x, limit[a:b], over)
            (lane,) = over.nonzero()
            if len(lane):
                large = x[lane]
                words.append(large.astype(np.uint16))
                x[lane] = large >> _WORD_SHIFT
            # x // f * SCALE + first + x % f, with one division and no remainder:
            # x % f = x - x // f * f, and so x + first + x // f * (SCALE - f).
            np.floor_divide(x, f, q)
            np.multiply(q, rest[a:b], q)
            np.add(x, cumulative[a:b], x)
            np.add(x, q, x)


def _push_compiled(
    native: Kernel,
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Do what `push` does, many rows at a time: their words need little room."""
    size = max(_ROOM // len(states), 1) * len(states)
    room = np.empty(min(size, len(symbols)) + 1, np.uint16)
    for part in reversed(list(blocks(len(symbols), size))):
        own = contiguous(symbols[part], np.uint16)
        found = room[: len(own) + 1]
        kept = contiguous(contexts[part], np.uint8)
        used = native.push(states, own, kept, table, found, 1)
        words.append(found[len(found) - used :].copy())


def _push_narrow(
    states: States,
    words: list[Words],
    symbols: Symbols,
    contexts: Array,
    table: States,
) -> None:
    """Do what `push` does, element by element: rows too short to work on as arrays."""
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


@frozen
class DecoderTables:
    """What each slot of each context stands for.

    Either a table with an entry for each slot, or, where these would be large beside
    the symbols, one for each symbol, found by bisection of the first slots.

    Parameters
    ----------
    rows : ndarray of int64, shape (contexts,)
        First slot of each context.
    ends : ndarray of int64, shape (entries,), optional
        The slot after each entry; `None` if there is an entry for each slot.
    steps : ndarray of uint32, shape (entries,)
        Frequency in the upper half, the slot's distance from the symbol's first in the
        lower one. With `ends`, what makes that, modulo 2^32, when the slot is added.
    values : ndarray of uint16, shape (entries,)
        The symbol.
    """

    rows: Array
    ends: Array | None
    steps: States
    values: Symbols

    @classmethod
    def of(cls, codes: Codes, used: Array, n: int) -> DecoderTables:
        """Build the tables of the contexts that `n` symbols use."""
        rows = (np.cumsum(used, dtype=np.int64) - 1) << SCALE_BITS
        slots = int(np.count_nonzero(used)) << SCALE_BITS
        frequencies = normalise(codes[used])
        contexts, symbols = np.nonzero(frequencies)
        widths = frequencies[contexts, symbols]
        values = symbols.astype(np.uint16)
        ends = np.cumsum(widths)
        firsts = ends - widths
        steps = widths.astype(np.uint32) << np.uint32(16)
        if slots > max(_SLOTS_PER_SYMBOL * n, _FEW_SLOTS):
            steps -= firsts.astype(np.uint32)
            return cls(rows, ends, steps, values)
        steps -= (firsts % SCALE).astype(np.uint32)
        table = np.repeat(steps, widths).reshape(-1, SCALE)
        table += np.arange(SCALE, dtype=np.uint32)
        return cls(rows, None, table.reshape(-1), np.repeat(values, widths))

    def look_up(self, slots: Array, steps: States) -> None:
        """Fill `steps`, and turn `slots` into the entries of `values`."""
        if self.ends is None:
            self.steps.take(slots, None, steps, "wrap")
            return
        entries = self.ends.searchsorted(slots, "right")
        self.steps.take(entries, None, steps, "wrap")
        np.add(steps, slots, steps, casting="unsafe")
        slots[:] = entries


@frozen
class KernelTables:
    """What the compiled kernel makes its own tables of.

    Parameters
    ----------
    frequencies : ndarray of uint16, shape (contexts, alphabet)
        All 0 in a context that no symbol uses.
    """

    native: Kernel
    frequencies: Array

    def pull(
        self, states: States, words: Words, symbols: Symbols, contexts: Array
    ) -> int:
        """Do what `pull` does."""
        read = self.native.pull(
            states,
            words,
            symbols,
            contiguous(contexts, np.uint8),
            self.frequencies,
            self.frequencies.shape[1],
            1,
        )
        if read < 0:
            raise CodecError("symbols are truncated")
        return read


def decoder_tables(codes: Codes, used: Array, n: int) -> DecoderTables | KernelTables:
    """Build the tables of the contexts that `n` symbols use."""
    if (native := compiled()) is None:
        return DecoderTables.of(codes, used, n)
    frequencies = np.zeros(codes.shape, np.uint16)
    frequencies[used] = normalise(codes[used])
    return KernelTables(native, frequencies)


def pull(
    states: States,
    words: Words,
    symbols: Symbols,
    contexts: Array,
    tables: DecoderTables | KernelTables,
) -> int:
    """Decode into `symbols`, first row first; return how many words were read."""
    if isinstance(tables, KernelTables):
        return tables.pull(states, words, symbols, contexts)
    narrow = _NARROW_LANES if tables.ends is None else _NARROW_BISECTED_LANES
    if len(states) <= narrow:
        return _pull_narrow(states, words, symbols, contexts, tables)
    lanes = len(states)
    size = max(_BLOCK // lanes, 1) * lanes
    row = _Row(states, words)
    for start in range(0, len(symbols), size):
        stop = min(start + size, len(symbols))
        index = tables.rows.take(contexts[start:stop])
        whole = (stop - start) // lanes * lanes
        # Each row's states depend on the row before, so that only the rows' contexts
        # and, after the loop, their symbols are looked up together: `look_up` leaves
        # the entries for that in `index`.
        row.pull(index[:whole].reshape(-1, lanes), tables)
        if whole < stop - start:
            row = _Row(states[: stop - start - whole], words, row.position)
            row.pull(index[whole:].reshape(1, -1), tables)
        np.take(tables.values, index, out=symbols[start:stop], mode="wrap")
    return row.position


class _Row:
    """States of lanes that take symbols together.

    Parameters
    ----------
    states : ndarray of uint32, shape (lanes,)
        Changed in place.
    words : ndarray of uint16
        What they read, from `position` on.
    position : int
        Where they are.
    """

    def __init__(self, states: States, words: Words, position: int = 0) -> None:
        self._states, self._words, self.position = states, words, position
        self._steps = np.empty(len(states), np.uint32)
        halves = states.view(np.uint16).reshape(-1, 2).T
        self._lower, self._upper = halves if _LITTLE else halves[::-1]
        self._slots = np.empty(len(states), np.uint32)
        self._under = np.empty(len(states), bool)

    def pull(self, index: Array, tables: DecoderTables) -> None:
        """Decode rows, of which each entry of `index` becomes that of a symbol."""
        x, slots, steps, under = self._states, self._slots, self._steps, self._under
        lower, upper, words = self._lower, self._upper, self._words
        take = tables.steps.take if tables.ends is None else None
        position, count = self.position, len(words)
        # No entry reaches 2^32, and numpy adds what is of one type in half of the time.
        low = index.view(np.uint32).reshape(*index.shape, 2)[..., 0 if _LITTLE else 1]
        for at, entry in zip(index, low, strict=True):
            np.bitwise_and(x, _SLOT_MASK, slots)
            np.add(entry, slots, entry)
            if take is not None:
                take(at, None, steps, "wrap")
            else:
                tables.look_up(at, steps)
            np.right_shift(x, _SLOT_SHIFT, x)
            np.right_shift(steps, _WORD_SHIFT, slots)
            np.multiply(x, slots, x)
            np.bitwise_and(steps, _WORD_MASK, steps)
            np.add(x, steps, x)
            np.less(x, _LEAST, under)
            # The lanes in need take words in their order, as the encoder left them.
            (lane,) = under.nonzero()
            k = len(lane)
            if k:
                last = position + k
                if last > count:
                    raise CodecError("symbols are truncated")
                upper[lane] = lower[lane]
                lower[lane] = words[position:last]
                position = last
        self.position = position


def _pull_narrow(
    states: States,
    words: Words,
    symbols: Symbols,
    contexts: Array,
    tables: DecoderTables,
) -> int:
    """Do what `pull` does, element by element: rows too short to work on as arrays."""
    lanes, count = len(states), len(words)
    position = 0
    x = states.tolist()
    word, step = words.data, tables.steps.data
    index = tables.rows.take(contexts)
    entry = index.data
    ends = tables.ends.tolist() if tables.ends is not None else None
    for i in range(len(symbols)):
        lane = i % lanes
        state = x[lane]
        at = entry[i] + state % SCALE
        if ends is None:
            packed = step[at]
        else:
            slot, at = at, bisect_right(ends, at)
            packed = (step[at] + slot) & 0xFFFFFFFF
        entry[i] = at
        state = (packed >> 16) * (state >> SCALE_BITS) + (packed & 0xFFFF)
        if state < LOWEST:
            if position == count:
                raise CodecError("symbols are truncated")
            state = state << 16 | word[position]
            position += 1
        x[lane] = state
    states[:] = x
    np.take(tables.values, index, out=symbols, mode="wrap")
    return position
