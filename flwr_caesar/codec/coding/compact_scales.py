"""What a compact block sends of the scales of its tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.layout import Array
from .compact_run import decode_run, encode_run
from .contexts import MAX_SCALE, Classes, Scales
from .counts import entropy_bits
from .integers import Integers
from .slices import Slices
from .small_block import decode_groups, encode_groups

_KINDS = 4
_BITS_PER_CODE = 4
_NEAR = range(-5, 6)
_TURNS = 3
_PRICE = 0.7
_BESIDE_A_RUN = 24  # bytes of its tables, numbers and a lane, at the least


@frozen
class Levels:
    """What is sent of scales: multiples of their units, or changes by such.

    Parameters
    ----------
    values : ndarray of int32
        The multiples.
    is_relative : bool
        Whether they are changes.
    """

    values: Integers
    is_relative: bool

    @classmethod
    def choose(
        cls,
        scales: Scales,
        units: Array,
        past: Sequence[Scales] | None,
        kinds: Classes,
        slices: Slices,
    ) -> tuple[Levels, Scales]:
        """Return what is sent of scales, and the scales that it stands for.

        Whether they are changes of the last round's, and each of them, is what takes
        the fewest bits: its own and those of the integers of its slice.

        Parameters
        ----------
        scales : ndarray of int16, shape (n,)
            The scales.
        units : ndarray of int32, shape (n,)
            Of each.
        past : sequence of ndarray of int16, or None
            The last round's.
        kinds : ndarray of uint8, shape (n,)
            Of the scales (`contexts.scale_kinds`).
        slices : Slices
            What the scales are of.
        """
        base = np.zeros(len(scales), np.int32)
        whole = (scales // units).astype(np.int32)
        values, costs = _cheapest(whole, base, units, kinds, slices)
        is_relative = False
        if past is not None:
            before = np.concatenate(past).astype(np.int32)
            moved = np.rint((scales - before) / units).astype(np.int32)
            changes, fewer = _cheapest(moved, before, units, kinds, slices)
            if _total(changes, fewer, kinds) < _total(values, costs, kinds):
                values, base, is_relative = changes, before, True
        return cls(values, is_relative), (base + units * values).astype(np.int16)

    def to_bytes(self, kinds: Classes) -> tuple[bool, bytes]:
        """Serialise in the shorter of two forms.

        Parameters
        ----------
        kinds : ndarray of uint8
            Of the scales (`contexts.scale_kinds`).

        Returns
        -------
        tuple of bool and bytes
            Whether they are groups without tables, one for each kind, and the bytes.
        """
        groups = [self.values[kinds == kind] for kind in np.flatnonzero(_sizes(kinds))]
        small = encode_groups(groups)
        if 8 * (len(small) - _BESIDE_A_RUN) <= sum(map(_entropy, groups)):
            return True, small
        run = encode_run(self.values, kinds, _KINDS)
        return (True, small) if len(small) < len(run) else (False, run)


def read_levels(
    data: bytes, offset: int, kinds: Classes, *, in_groups: bool
) -> tuple[Integers, int]:
    """Read what `Levels.to_bytes` wrote; return the values and the offset behind.

    Raises
    ------
    CodecError
        If the bytes at the offset do not begin with so many.
    """
    if not in_groups:
        return decode_run(data, offset, kinds, _KINDS)
    sizes = [size for size in _sizes(kinds).tolist() if size]
    found, end = decode_groups(data, offset, sizes)
    values = np.empty_like(found)
    values[np.argsort(kinds, kind="stable")] = found
    return values, end


def _cheapest(
    values: Integers, base: Integers, units: Array, kinds: Classes, slices: Slices
) -> tuple[Integers, list[tuple[Array, Array]]]:
    """Return the multiples of units above a base that take the fewest bits.

    A multiple takes what its share among those of its kind says, of which 0.7 was
    found to be best: integers are less alike than `Slices.bits` has it. Shares and
    multiples are found in turns, multiples among the eleven nearest. The scales of
    whole tensors stay as they are.

    Returns
    -------
    tuple of ndarray of int32 and list of tuple of ndarray
        The multiples; and for each kind that there is, which of them are of it, and the
        bits of the integers of each.
    """
    found = values.copy()
    chosen = []
    for kind in np.flatnonzero(_sizes(kinds)).tolist():
        own = np.flatnonzero(kinds == kind)
        bits = np.zeros(0, np.float32)
        if kind:
            each = np.arange(len(own))
            choices = values[own] + np.array(_NEAR, np.int32)[:, None]
            scales = base[own] + units[own] * choices
            costs = slices.bits(own, scales)
            costs[np.abs(scales) > MAX_SCALE] = np.inf
            choices -= choices.min()
            taken = choices[len(_NEAR) // 2]
            for _ in range(_TURNS):
                counts = np.bincount(taken, minlength=int(choices.max()) + 1)
                price = -_PRICE * np.log2((counts + 0.1) / len(own)).astype(np.float32)
                best = (costs + price[choices]).argmin(axis=0)
                taken = choices[best, each]
            found[own] += best.astype(np.int32) + _NEAR[0]
            bits = costs[best, each]
        chosen.append((own, bits))
    return found, chosen


def _total(values: Integers, costs: list[tuple[Array, Array]], kinds: Classes) -> float:
    """Return about how many bits multiples and integers take (`_cheapest`)."""
    bits = 0.0
    for own, of_integers in costs:
        bits += float(of_integers.sum())
        bits += _bits(values[own], kinds[own])
    return bits


def _bits(values: Integers, kinds: Classes) -> float:
    """Return about how many bits take what is sent of scales of such kinds."""
    from_least = values - values.min()
    span = int(from_least.max()) + 1
    counts = np.bincount(kinds * np.int64(span) + from_least, minlength=_KINDS * span)
    codes = _BITS_PER_CODE * float(np.count_nonzero(counts))
    return entropy_bits(counts.reshape(_KINDS, span)) + codes


def _sizes(kinds: Classes) -> Array:
    return np.bincount(kinds, minlength=_KINDS)


def _entropy(values: Integers) -> float:
    return entropy_bits(np.bincount(values - values.min())) if len(values) else 0.0
