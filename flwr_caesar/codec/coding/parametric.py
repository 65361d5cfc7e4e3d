"""Tables of few parameters: what a compact block may have in place of frequencies.

In steps of an eighth of an octave, in which weight codes (`tables`) count, the
frequencies of a geometric distribution lie on a line. So a context is told by how much
rarer an integer of magnitude 1 is than a 0, and by how fast larger ones get rarer; how
much rarer negative ones are is told once for all contexts.
"""

from __future__ import annotations

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.layout import Array
from .class_counts import ClassCounts, n_log_n
from .compact_symbols import ALPHABET, MAGNITUDES, OCTAVES
from .contexts import ContextMap
from .small_block import decode_groups, encode_groups
from .tables import MAX_CODE, SCALE, Codes, normalise

BITS_PER_CONTEXT = 9
_LARGEST_RATIO, _LARGEST_SIGN, _SLOPES = 64, 64, 48
_FIRST_SLOPE = 40
_RATIO_UNIT = 4
_SLOPE_BITS = 20
_STEPS_PER_OCTAVE = 8
_PRIOR = 0.25


@frozen
class Parameters:
    """What the tables of a block's contexts are made of.

    Parameters
    ----------
    alphabet : int
        Symbols of each table, from 1 to 128.
    sign : int
        By how many eighths of an octave negative integers are rarer, from -64 to 64.
    ratios : ndarray of int32, shape (contexts,)
        By how many half octaves a magnitude of 1 is more frequent than a 0.
    slopes : ndarray of int32, shape (contexts,)
        From 0 to 47: which of the slopes that double with every second one.
    """

    alphabet: int
    sign: int
    ratios: Array
    slopes: Array

    @classmethod
    def fit(cls, counts: Array) -> Parameters:
        """Fit parameters to how often each symbol occurs in each context.

        Parameters
        ----------
        counts : ndarray of int64, shape (contexts, alphabet)
            Of the symbols of `compact_symbols`.
        """
        alphabet = counts.shape[1]
        zeros = counts[:, 0].astype(np.float64)
        active = counts[:, 1:].sum(axis=1)
        excess = counts[:, 1:] @ (MAGNITUDES[1:alphabet] - 1)
        total = counts[:, : 2 * _STEPS_PER_OCTAVE].sum(axis=0)
        positive, negative = total[2::2].sum() + _PRIOR, total[1::2].sum() + _PRIOR
        sign = int(np.rint(_STEPS_PER_OCTAVE * np.log2(positive / negative)))
        sign = max(-_LARGEST_SIGN, min(sign, _LARGEST_SIGN))
        # Of a magnitude of 1, those of the sign that is more frequent.
        likelier = max(positive, negative) / (positive + negative)
        nearest = (active + _PRIOR) ** 2 / (active + excess + _PRIOR) * likelier
        ratios = np.rint(2 * np.log2(nearest / (zeros + _PRIOR)))
        falls = _STEPS_PER_OCTAVE * np.log2(1 + (active + _PRIOR) / (excess + _PRIOR))
        slopes = np.rint(2 * np.log2(falls / 8) + 2 * _SLOPE_BITS)
        ratios = _within(ratios, -_LARGEST_RATIO, _LARGEST_RATIO)
        slopes = _within(slopes, 0, _SLOPES - 1)
        for unknown in np.flatnonzero(counts.sum(axis=1) == 0).tolist():
            if unknown:  # costs the least
                ratios[unknown] = ratios[unknown - 1]
                slopes[unknown] = slopes[unknown - 1]
        return cls(alphabet, sign, ratios, slopes)

    def codes(self) -> Codes:
        """Return the weight codes of the tables, shape (contexts, alphabet).

        With the symbol of a magnitude `k`, or of magnitudes about `k` in an octave of
        ``2^w`` integers, its level is ``4 r - s (k - 1)`` and for an octave `8 w` more,
        less what its sign costs; that of a 0 is 0. Codes are levels, moved so that the
        largest is 136, and at least 1.
        """
        symbols = np.arange(self.alphabet)
        far = OCTAVES[: self.alphabet]
        slopes = (8 + 4 * (self.slopes.astype(np.int64) % 2)) << (self.slopes // 2)
        falls = slopes[:, np.newaxis] * (MAGNITUDES[: self.alphabet] - 1)
        signed = np.where(symbols % 2, max(self.sign, 0), max(-self.sign, 0))
        either = min(abs(self.sign), _STEPS_PER_OCTAVE)
        own = np.where(far > 0, _STEPS_PER_OCTAVE * far - either, -signed)
        levels = _RATIO_UNIT * self.ratios[:, np.newaxis] - (falls >> _SLOPE_BITS) + own
        levels[:, 0] = 0
        moved = levels + (MAX_CODE - levels.max(axis=1, keepdims=True))
        codes: Codes = np.maximum(moved, 1).astype(np.uint8)
        return codes

    def to_bytes(self, width: int) -> bytes:
        """Serialise: two numbers, then ratios and slopes as differences.

        Parameters
        ----------
        width : int
            Contexts of a history class; the first of each is compared with the first
            of the one before, others with the context before; the very first with a
            ratio of 0 and a slope of 40.
        """
        numbers = np.array([self.alphabet - 1, self.sign], np.int32)
        slopes = self.slopes - _FIRST_SLOPE
        rows = (_differences(row, width) for row in (self.ratios, slopes))
        return encode_groups([numbers, *rows])

    @classmethod
    def read(
        cls, data: bytes, offset: int, contexts: int, width: int
    ) -> tuple[Parameters, int]:
        """Read what `to_bytes` wrote; return it and the offset behind.

        Raises
        ------
        CodecError
            If the bytes are not the parameters of so many contexts.
        """
        values, end = decode_groups(data, offset, [2, contexts, contexts])
        alphabet, sign = int(values[0]) + 1, int(values[1])
        ratios = _sums(values[2 : 2 + contexts], width)
        slopes = _sums(values[2 + contexts :], width) + _FIRST_SLOPE
        if (
            not 1 <= alphabet <= ALPHABET
            or abs(sign) > _LARGEST_SIGN
            or int(np.abs(ratios).max()) > _LARGEST_RATIO
            or not 0 <= int(slopes.min()) <= int(slopes.max()) < _SLOPES
        ):
            raise CodecError("parameters of tables are out of range")
        return cls(alphabet, sign, ratios, slopes), end


def _within(values: Array, least: int, most: int) -> Array:
    return np.minimum(np.maximum(values, least), most).astype(np.int32)


def _differences(values: Array, width: int) -> Array:
    rows = values.reshape(-1, width)
    firsts = np.diff(rows[:, :1], axis=0, prepend=0)
    return np.concatenate([firsts, np.diff(rows, axis=1)], axis=1).reshape(-1)


def _sums(differences: Array, width: int) -> Array:
    rows = differences.astype(np.int64).reshape(-1, width)
    firsts = np.cumsum(rows[:, :1], axis=0)
    return np.cumsum(
        np.concatenate([firsts, rows[:, 1:]], axis=1), axis=1, dtype=np.int64
    ).reshape(-1)


def coded_bits(codes: Codes, counts: Array) -> float:
    """Return the bits that symbols take which occur so often, with such tables."""
    seen = counts > 0
    shares = normalise(codes)[seen] / SCALE
    return float(-(counts[seen] * np.log2(shares)).sum())


def best_parametric_map(counts: ClassCounts) -> ContextMap:
    """Return the map with the fewest bits, where each context has two parameters.

    Of a context the zeros, the other integers and the sum of their magnitudes are all
    that the best parameters depend on.
    """
    by_class = counts.by_class
    every = by_class.sum(axis=2)
    active = every - by_class[:, :, 0]
    excess = by_class @ MAGNITUDES[: by_class.shape[2]] - active
    sums = np.stack([every, active, excess], axis=2).astype(np.float64)

    def bits(contexts: Array) -> Array:
        n, own, more = contexts.T
        zeros = n_log_n(n) - n_log_n(own) - n_log_n(n - own)
        others = n_log_n(own + more) - n_log_n(own) - n_log_n(more)
        found: Array = zeros + others + BITS_PER_CONTEXT
        return found

    return counts.best(sums, bits)[0]
