"""What a compact block sends of the scales of its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.layout import Array
from .compact_run import decode_run, encode_run
from .contexts import Classes, Scales
from .counts import entropy_bits
from .integers import Integers
from .small_block import decode_groups, encode_groups

_KINDS = 4
_BITS_PER_CODE = 4
_BITS_PER_MISFIT = math.log(2) / 32  # of a quarter of an octave, squared
_BESIDE_A_RUN = 24  # bytes of its tables, numbers and a lane, at the least


@dataclass(frozen=True)
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
        active: Array,
    ) -> tuple[Levels, Scales]:
        """Return what is sent of scales, and the scales that it stands for.

        Relative to the last round's, a scale stays as it was where it is within three
        quarters of a unit. That is chosen where it saves more bits than its scales cost
        the integers: a slice of `k` that are not 0 takes about ``k ln(r)^2 / (2 ln 2)``
        more where its scale is `r` times what it should be.

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
        active : ndarray of float64, shape (n,)
            About how many integers of a scale's slice are not 0.
        """
        whole = (scales // units).astype(np.int32)
        if past is None:
            return cls(whole, is_relative=False), scales
        before = np.concatenate(past)
        gap = scales.astype(np.int32) - before
        moved = (np.sign(gap) * ((np.abs(gap) + units // 4) // units)).astype(np.int32)
        off = units * moved - gap
        misfit = (active * np.square(off, dtype=np.float64)).sum()
        lost = _BITS_PER_MISFIT * float(misfit)
        if _bits(whole, kinds) <= _bits(moved, kinds) + lost:
            return cls(whole, is_relative=False), scales
        return cls(moved, is_relative=True), (before + units * moved).astype(np.int16)

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
