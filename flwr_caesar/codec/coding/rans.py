"""Interleaved range asymmetric numeral systems (rANS): symbols to bytes and back.

Section 9 of `docs/wire-format.md` is the normative description of the bytes.
"""

from __future__ import annotations

import struct

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..kernel import compiled, contiguous
from .blocks import blocks
from .counts import Symbols, count_symbols, entropy_bits
from .lane_states import read_states, write_states
from .lanes import (
    LOWEST,
    Words,
    decoder_tables,
    encoder_table,
    pull,
    push,
)
from .tables import Codes, pack_tables, quantise_counts, unpack_tables

MAX_CONTEXTS = 256
MAX_ROWS = 1 << 11
_HEAD = struct.Struct("<QIHHHHI")
_BYTES_PER_LANE = 128
_MOST_BYTES_PER_LANE = 168  # of few symbols; a reader takes 256
_FEW_BYTES = 1 << 12
_WIDE_LANES = 1 << 11
_SMALL_LANES = 32


@frozen
class Parts:
    """The two parts of a stream of symbols.

    Parameters
    ----------
    head : int
        Symbols of the first part.
    many, few : int
        Lanes of the first and of the second part.
    borrowed : int
        Words that the first part's last states give to the second.
    """

    head: int
    many: int
    few: int
    borrowed: int

    def fit(self, n: int, words: int) -> bool:
        """Whether a stream of so many symbols and words may be divided like that."""
        head, many, few = self.head, self.many, self.few
        return not (
            head > n
            or not 1 <= few <= max(n - head, 1)
            or many < 1
            or (head and many > head)
            or -(-head // many) > MAX_ROWS
            or -(-(n - head) // few) > MAX_ROWS
            or -(-head // many) - (-(n - head) // few) > most_rows(n)
            or self.borrowed > (many if head else 0)
            or words > most_words(max(many if head else 0, few))
        )


def encode_symbols(
    symbols: Symbols,
    contexts: Array,
    num_contexts: int,
    counts: Array | None = None,
) -> bytes:
    """Entropy-code symbols, each by the table of its context.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
        Values below 512.
    contexts : ndarray of uint8, shape (n,)
        Values below `num_contexts`; the decoder must know them.
    num_contexts : int
        Number of tables, at most 256.
    counts : ndarray of int64, shape (num_contexts, alphabet), optional
        What `count_symbols` returns of these, if it is known.

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
    if counts is None:
        counts = count_symbols(symbols, contexts, num_contexts)
    codes = quantise_counts(counts)
    tables = pack_tables(codes)
    parts, stack = push_parts(symbols, contexts, codes, entropy_bits(counts))
    header = _HEAD.pack(
        n,
        parts.head,
        parts.many,
        parts.few,
        parts.borrowed,
        num_contexts,
        len(stack),
    )
    return b"".join([header, tables, stack.astype("<u2", copy=False).data])


def push_parts(
    symbols: Symbols, contexts: Array, codes: Codes, bits: float
) -> tuple[Parts, Words]:
    """Encode symbols with the tables of their contexts.

    Parameters
    ----------
    symbols, contexts
        See `encode_symbols`.
    codes : ndarray of uint8, shape (contexts, alphabet)
        The tables (`tables.quantise_counts`).
    bits : float
        About how many bits they take.

    Returns
    -------
    tuple of Parts and ndarray of uint16
        How the symbols are divided, and the words.
    """
    few, many, head = _choose_lanes(len(symbols), bits)
    table = encoder_table(codes)
    words: list[Words] = []
    states = np.full(few, LOWEST, np.uint32)
    push(states, words, symbols[head:], contexts[head:], table)
    stack = np.concatenate([np.empty(0, np.uint16), *words[::-1]])
    stack = np.concatenate([write_states(states), stack])
    borrowed = 0
    if head:
        borrowed = min(many, len(stack))
        states = np.full(many, LOWEST, np.uint32)
        states[:borrowed] += stack[:borrowed]
        words = []
        push(states, words, symbols[:head], contexts[:head], table)
        stack = np.concatenate([write_states(states), *words[::-1], stack[borrowed:]])
    return Parts(head, many, few, borrowed), stack


def _choose_lanes(n: int, bits: float) -> tuple[int, int, int]:
    """Choose lanes of the short last part and the long first part, and its length."""
    each = _MOST_BYTES_PER_LANE if bits < 8 * _FEW_BYTES else _BYTES_PER_LANE
    lanes = min(int(bits / 8) // each, _WIDE_LANES)
    least = -(-n // MAX_ROWS)
    lanes = max(lanes, least, 1)
    if lanes <= 2 * _SMALL_LANES or bits < 17 * lanes:
        return lanes, 1, 0
    few = max(_SMALL_LANES, lanes // 16)
    tail = min(int(lanes * 17 * n / bits) + few, few * MAX_ROWS, n)
    return few, lanes, n - tail


def most_rows(n: int) -> int:
    """Return how many rows both parts of `n` symbols may have together.

    A row takes about as long to decode whatever its lanes, so that few elements in many
    rows would take longer than an encoder ever makes it.
    """
    return MAX_ROWS + n // 64


def most_words(lanes: int) -> int:
    """Return how many words so many lanes may have, twice what an encoder gives them.

    So that few lanes are left to symbols that take few bits.
    """
    return _BYTES_PER_LANE * (lanes + 1) if lanes < _WIDE_LANES else 1 << 32


def _used(contexts: Array, num_contexts: int) -> Array:
    """Return whether each context occurs."""
    if (native := compiled()) is not None:
        found = np.zeros(MAX_CONTEXTS, bool)
        native.mark(contiguous(contexts, np.uint8), found.view(np.uint8))
        return found[:num_contexts]
    used = np.zeros(num_contexts, bool)
    for part in blocks(len(contexts)):
        used |= np.bincount(contexts[part], minlength=num_contexts) > 0
    return used


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
    parts = Parts(head, many, few, borrowed)
    if (n, sent) != (len(contexts), num_contexts) or not parts.fit(n, count):
        raise CodecError("symbols have a malformed header")
    codes, offset = unpack_tables(data, offset + _HEAD.size, num_contexts)
    if len(data) - offset != 2 * count:
        raise CodecError("symbols have the wrong length")
    stack: Words = np.frombuffer(data, "<u2", count, offset).astype(np.uint16)
    return pull_parts(parts, stack, contexts, codes)


def pull_parts(parts: Parts, stack: Words, contexts: Array, codes: Codes) -> Symbols:
    """Decode what `push_parts` wrote with the same contexts and tables.

    Raises
    ------
    CodecError
        If the words are not exactly an encoding of that many symbols. `Parts.fit` is
        for the caller to ask.
    """
    n, num_contexts = len(contexts), len(codes)
    head, many, few, borrowed = parts.head, parts.many, parts.few, parts.borrowed
    if np.count_nonzero(codes) > n:
        raise CodecError("symbol tables name more symbols than there are")
    known = np.asarray(codes.any(axis=1))
    used = known if known.all() else _used(contexts, num_contexts)
    if (used & ~known).any():
        raise CodecError("symbols use a context without a table")
    tables = decoder_tables(codes, used, n)
    symbols = np.empty(n, np.uint16)
    if head:
        states, stack = read_states(stack, many)
        position = pull(states, stack, symbols[:head], contexts[:head], tables)
        states -= np.uint32(LOWEST)
        if (states[:borrowed] >= LOWEST).any() or states[borrowed:].any():
            raise CodecError("symbols end in a wrong state")
        lent = states[:borrowed].astype(np.uint16)
        stack = np.concatenate([lent, stack[position:]])
    states, stack = read_states(stack, few)
    position = pull(states, stack, symbols[head:], contexts[head:], tables)
    if position != len(stack) or (states != LOWEST).any():
        raise CodecError("symbols end in a wrong state")
    return symbols
