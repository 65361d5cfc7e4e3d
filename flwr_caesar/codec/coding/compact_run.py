"""A run of integers in contexts: few bytes beside what the integers take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from .compact_symbols import Far, from_compact, pack_raw, to_compact
from .compact_tables import pack_compact_tables, unpack_compact_tables
from .counts import Symbols, count_symbols, entropy_bits
from .integers import Integers
from .lanes import Words
from .rans import Parts, pull_parts, push_parts
from .tables import Codes, quantise_counts
from .varint import read_varint, write_varint


def encode_run(values: Array, contexts: Array, num_contexts: int) -> bytes:
    """Entropy-code integers, each by the table of its context.

    Tables, words and raw bits one after another. The number of integers is not written,
    and where all of them are in one part, which up to some kilobytes they are, neither
    is how they are divided.

    Parameters
    ----------
    values : ndarray of int32, shape (n,)
        Magnitudes below 2^31.
    contexts : ndarray of uint8, shape (n,)
        Known to the decoder; values below `num_contexts`.
    num_contexts : int
        Number of tables, at most 256.
    """
    symbols, far = to_compact(values)
    counts = count_symbols(symbols, contexts, num_contexts)
    codes = quantise_counts(counts)
    words = encode_words(symbols, [far], contexts, codes, entropy_bits(counts))
    return pack_compact_tables(codes) + words


def encode_words(
    symbols: Symbols, far: Sequence[Far], contexts: Array, codes: Codes, bits: float
) -> bytes:
    """Return what a run has after its tables.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
        From `compact_symbols.to_compact`.
    far : sequence of ndarray of uint32
        From there, too, in pieces.
    contexts : ndarray of uint8, shape (n,)
        Their contexts.
    codes : ndarray of uint8, shape (contexts, alphabet)
        The tables.
    bits : float
        About how many bits the symbols take.
    """
    parts, stack = push_parts(symbols, contexts, codes, bits)
    numbers = [len(stack), 2 * parts.few + bool(parts.head)]
    if parts.head:
        numbers += [parts.head, parts.many, parts.borrowed]
    return b"".join(
        [
            *map(write_varint, numbers),
            stack.astype("<u2", copy=False).data,
            pack_raw(far),
        ]
    )


def decode_run(
    data: bytes, offset: int, contexts: Array, num_contexts: int
) -> tuple[Integers, int]:
    """Decode what `encode_run` wrote with the same contexts.

    Returns
    -------
    tuple of ndarray of int32 and int
        The integers, and the offset behind them.

    Raises
    ------
    CodecError
        If the bytes at the offset do not begin with such a run.
    """
    codes, offset = unpack_compact_tables(data, offset, num_contexts)
    return decode_words(data, offset, contexts, codes)


def decode_words(
    data: bytes, offset: int, contexts: Array, codes: Codes
) -> tuple[Integers, int]:
    """Decode what `encode_words` wrote; see `decode_run`."""
    words, offset = read_varint(data, offset)
    lanes, offset = read_varint(data, offset)
    head = borrowed = 0
    many = 1
    if lanes & 1:
        head, offset = read_varint(data, offset)
        many, offset = read_varint(data, offset)
        borrowed, offset = read_varint(data, offset)
    parts = Parts(head, many, lanes >> 1, borrowed)
    if bool(head) != lanes & 1 or not parts.fit(len(contexts), words):
        raise CodecError("a run of integers is malformed")
    end = offset + 2 * words
    if end > len(data):
        raise CodecError("a run of integers is truncated")
    stack: Words = np.frombuffer(data, "<u2", words, offset).astype(np.uint16)
    return from_compact(pull_parts(parts, stack, contexts, codes), data, end)
