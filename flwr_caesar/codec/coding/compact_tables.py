"""Tables of the integers of a compact block: of frequencies, or of parameters."""

from __future__ import annotations

import math

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.layout import Array
from .class_counts import ClassCounts
from .compact_symbols import ALPHABET
from .contexts import ContextMap
from .counts import entropy_bits
from .parametric import Parameters, best_parametric_map, coded_bits
from .positions import best_rice, pack_bits, unpack_bits
from .tables import Codes, checked_codes, differences, quantise_counts

_MOST_ZEROS = 64
_BITS_PER_CODE, _BITS_PER_TABLE = 4, 40


@frozen
class CompactTables:
    """The tables of the integers of a block.

    Parameters
    ----------
    contexts : ContextMap
        Of the integers.
    codes : ndarray of uint8, shape (contexts, alphabet)
        Weight codes.
    bits : float
        About how many bits the integers' symbols take.
    told : bytes
        What is sent of the tables.
    is_parametric : bool
        Whether these are parameters.
    """

    contexts: ContextMap
    codes: Codes
    bits: float
    told: bytes
    is_parametric: bool

    @classmethod
    def choose(cls, counts: ClassCounts) -> CompactTables:
        """Return the tables with the fewest bits, what is sent of them included."""
        contexts = best_parametric_map(counts)
        merged = counts.merged(contexts)
        parameters = Parameters.fit(merged)
        codes = parameters.codes()
        is_allowed = codes.size <= merged.sum()
        bits = coded_bits(codes, merged) if is_allowed else math.inf

        def parametric(most: float) -> CompactTables | None:
            if bits > most:
                return None
            told = parameters.to_bytes(contexts.width)
            few = cls(contexts, codes, bits, told, True)
            return few if few.size <= most else None

        merge, least = counts.best_map(_BITS_PER_CODE, _BITS_PER_TABLE)
        if (few := parametric(least)) is not None:
            return few
        joint = counts.merged(merge)
        weights = quantise_counts(joint)
        told = pack_compact_tables(weights)
        many = cls(merge, weights, entropy_bits(joint), told, False)
        return parametric(many.size) or many

    @property
    def size(self) -> float:
        """Bits of the symbols and of what is sent of the tables."""
        return self.bits + 8 * len(self.told)


def read_tables(
    data: bytes, offset: int, contexts: ContextMap, *, is_parametric: bool
) -> tuple[Codes, int]:
    """Return the codes of tables, and the offset behind what tells them.

    Raises
    ------
    CodecError
        If the bytes at the offset do not begin with the tables of so many contexts.
    """
    if not is_parametric:
        return unpack_compact_tables(data, offset, contexts.size)
    found, end = Parameters.read(data, offset, contexts.size, contexts.width)
    return found.codes(), end


def pack_compact_tables(codes: Codes) -> bytes:
    """Serialise weight codes (`tables.quantise_counts`).

    The differences of `tables.pack_tables`, with a byte for the size of each table, one
    for the low bits `k`, and the two parts, whose lengths follow from their content.

    Parameters
    ----------
    codes : ndarray of uint8, shape (contexts, alphabet)
        Of an alphabet of at most 128 symbols.
    """
    sizes, zigzag = differences(codes)
    k = min(best_rice(zigzag)[0], 7)
    ends = np.cumsum((zigzag >> k) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    low = pack_bits(zigzag & ((1 << k) - 1), k)
    return bytes([*sizes, k]) + np.packbits(unary).tobytes() + low


def unpack_compact_tables(data: bytes, offset: int, contexts: int) -> tuple[Codes, int]:
    """Read what `pack_compact_tables` wrote; return the codes and the offset behind.

    Raises
    ------
    CodecError
        If the bytes are not the tables of `contexts` contexts.
    """
    start = offset + contexts + 1
    if len(data) < start:
        raise CodecError("symbol tables are truncated")
    sizes, k = list(data[offset : start - 1]), data[start - 1]
    total = sum(sizes)
    if k > 7 or max(sizes, default=0) > ALPHABET:
        raise CodecError("symbol tables are malformed")
    room = min(len(data) - start, _MOST_ZEROS * total)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, room, start)))
    ones = ones[:total]
    if len(ones) != total:
        raise CodecError("symbol tables are truncated")
    middle = start + (int(ones[-1]) // 8 + 1 if total else 0)
    end = middle + (k * total + 7) // 8
    if end > len(data):
        raise CodecError("symbol tables are truncated")
    low = unpack_bits(data[middle:end], k, total).astype(np.int64)
    zigzag: Array = ((np.diff(ones, prepend=-1) - 1) << k) | low
    return checked_codes(sizes, zigzag), end
