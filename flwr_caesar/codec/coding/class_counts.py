"""Which context map takes the fewest bits, by how often symbols occur in classes."""

from __future__ import annotations

import numpy as np

from ..contract.layout import Array
from .blocks import blocks
from .contexts import CLASSES, HISTORIES, Classes, ContextMap
from .counts import Symbols, count_symbols, entropy_bits
from .integers import to_symbols
from .tables import MAX_ALPHABET

_BITS_PER_CODE = 4
_BITS_PER_TABLE = 20
_COUNTED = 1 << 18


def choose_contexts(
    indices: Array, classes: Classes, histories: Classes | None
) -> ContextMap:
    """Choose the map with the fewest bits, tables included."""
    counts = ClassCounts(with_history=histories is not None)
    for part in blocks(len(indices), _COUNTED):
        seen = None if histories is None else histories[part]
        counts.add(to_symbols(indices[part]), classes[part], seen)
    return counts.best_map(_BITS_PER_CODE, _BITS_PER_TABLE)


class ClassCounts:
    """How often symbols occur in each scale class, and each history class of it.

    Parameters
    ----------
    with_history : bool
        Whether there are history classes.
    """

    def __init__(self, *, with_history: bool) -> None:
        self._kinds = HISTORIES if with_history else 1
        self._counts = np.zeros((self._kinds * CLASSES, MAX_ALPHABET), np.int64)

    def add(
        self, symbols: Symbols, classes: Classes, histories: Classes | None
    ) -> None:
        """Count symbols of so many classes; `histories` only with a history."""
        fine = classes.astype(np.uint16)
        if histories is not None:
            fine += histories.astype(np.uint16) * np.uint16(CLASSES)
        found = count_symbols(symbols, fine, len(self._counts))
        self._counts[:, : found.shape[1]] += found

    def best_map(self, bits_per_code: float, bits_per_table: float) -> ContextMap:
        """Return the map with the fewest bits, tables included."""
        used = np.flatnonzero(self._counts.any(axis=0))
        alphabet = int(used[-1]) + 1 if len(used) else 1
        by_class = self._counts[:, :alphabet].reshape(self._kinds, CLASSES, alphabet)
        used = np.flatnonzero(by_class.any(axis=(0, 2)))
        low, high = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        best: tuple[float, ContextMap] | None = None
        for shift in range(1, 6):
            first, width = low >> shift, (high >> shift) - (low >> shift) + 1
            starts = np.arange(0, CLASSES, 1 << shift)
            merged = np.add.reduceat(by_class, starts, axis=1)
            for use_history in (False, True) if self._kinds > 1 else (False,):
                tables = merged if use_history else merged.sum(axis=0, keepdims=True)
                bits = (
                    entropy_bits(tables)
                    + bits_per_code * np.count_nonzero(tables)
                    + bits_per_table * width * len(tables)
                )
                if best is None or bits < best[0]:
                    best = bits, ContextMap(shift, first, width, use_history)
        assert best is not None
        return best[1]
