"""Vectors one after another, each times a power of two, without a copy of them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from ..contract.energy import energy
from ..contract.layout import Array
from ..contract.power import times_power
from ..contract.vector import Vector
from .select import count_kept, top_k_mask


class Pieces:
    """What concatenating scaled vectors would give, made for as much as is asked for.

    Parameters
    ----------
    vectors : sequence of ndarray of float32, each of shape (n,)
        The vectors.
    octaves : sequence of int, optional
        The power of two that each is multiplied by; 0 for all by default.
    """

    def __init__(
        self, vectors: Sequence[Vector], octaves: Sequence[int] | None = None
    ) -> None:
        self._vectors = vectors
        self._octaves = [0] * len(vectors) if octaves is None else octaves
        self._bounds = list(accumulate(map(len, vectors), initial=0))

    def __len__(self) -> int:
        """Return the number of elements."""
        return self._bounds[-1]

    def __iter__(self) -> Iterator[Vector]:
        """Iterate over the scaled vectors."""
        for vector, octaves in zip(self._vectors, self._octaves, strict=True):
            yield _scaled(vector, octaves)

    def take(self, positions: Array) -> Vector:
        """Return the elements at increasing positions."""
        cuts = np.searchsorted(positions, self._bounds).tolist()
        found = np.empty(len(positions), np.float32)
        for i, vector in enumerate(self._vectors):
            own = slice(cuts[i], cuts[i + 1])
            chosen = vector[positions[own] - self._bounds[i]]
            found[own] = _scaled(chosen, self._octaves[i])
        return found

    def nonzero(self) -> Array:
        """Return the positions of the elements that are not 0."""
        starts = self._bounds[:-1]
        found = [
            np.flatnonzero(vector) + start
            for vector, start in zip(self._vectors, starts, strict=True)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def part(self, where: slice) -> Vector:
        """Return consecutive elements, from `where.start` to `where.stop`; to read."""
        found: list[Vector] = []
        for i, vector in enumerate(self._vectors):
            start = max(where.start - self._bounds[i], 0)
            stop = min(where.stop - self._bounds[i], len(vector))
            if start < stop:
                found.append(_scaled(vector[start:stop], self._octaves[i]))
        if len(found) == 1:
            return found[0]
        return np.concatenate([np.empty(0, np.float32), *found])

    def keep_largest(self, share: float) -> float:
        """Set all but a share of each vector's elements to 0, in place.

        The largest stay, of equal ones the first.

        Parameters
        ----------
        share : float
            In (0, 1].

        Returns
        -------
        float
            The root mean square of those that stay and are not 0.
        """
        count, total = 0, 0.0
        for vector, octaves in zip(self._vectors, self._octaves, strict=True):
            vector[~top_k_mask(vector, count_kept(len(vector), share))] = 0
            kept = _scaled(vector[vector != 0], octaves)
            count += len(kept)
            total += energy(kept)
        return math.sqrt(total / count)


def _scaled(x: Vector, octaves: int) -> Vector:
    return times_power(x, octaves) if octaves else x
