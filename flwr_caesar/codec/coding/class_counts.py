"""Which context map takes the fewest bits, by how often symbols occur in classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..contract.layout import Array
from .blocks import blocks
from .contexts import CLASSES, HISTORIES, Classes, ContextMap
from .counts import Symbols, count_symbols, entropy_bits
from .tables import MAX_ALPHABET

_BITS_PER_CODE = 4
_BITS_PER_TABLE = 20
_COUNTED = 1 << 18
_SHIFTS = range(1, 6)


def choose_contexts(
    symbols: Symbols, classes: Classes, histories: Classes | None
) -> tuple[ContextMap, Array]:
    """Choose the map with the fewest bits, tables included.

    Returns
    -------
    tuple of ContextMap and ndarray of int64, shape (contexts, alphabet)
        The map, and how often each symbol up to the largest occurs in its contexts, as
        `counts.count_symbols` would find.
    """
    counts = ClassCounts(symbols, classes, histories)
    best = counts.best_map(_BITS_PER_CODE, _BITS_PER_TABLE)
    return best, counts.merged(best)


class ClassCounts:
    """How often symbols occur in each scale class, and each history class of it.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
        Symbols.
    classes : ndarray of uint8, shape (n,)
        Their scale classes.
    histories : ndarray of uint8, shape (n,), optional
        Their history classes.
    """

    def __init__(
        self, symbols: Symbols, classes: Classes, histories: Classes | None
    ) -> None:
        if histories is None:
            counts = count_symbols(symbols, classes, CLASSES)
        else:
            counts = np.zeros((HISTORIES * CLASSES, MAX_ALPHABET), np.int64)
            for part in blocks(len(symbols), _COUNTED):
                fine = histories[part].astype(np.uint16) * np.uint16(CLASSES)
                fine += classes[part]
                found = count_symbols(symbols[part], fine, len(counts))
                counts[:, : found.shape[1]] += found
            alphabet = int(np.flatnonzero(counts.any(axis=0)).max(initial=0)) + 1
            counts = counts[:, :alphabet]
        self.by_class: Array = counts.reshape(-1, CLASSES, counts.shape[1])

    def maps(self) -> Iterator[ContextMap]:
        """Yield the maps of all classes that occur."""
        used = np.flatnonzero(self.by_class.any(axis=(0, 2)))
        low, high = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        for shift in _SHIFTS:
            first, width = low >> shift, (high >> shift) - (low >> shift) + 1
            for use_history in (False, True) if len(self.by_class) > 1 else (False,):
                yield ContextMap(shift, first, width, use_history)

    def merged(self, contexts: ContextMap, by_class: Array | None = None) -> Array:
        """Return how often symbols occur in the contexts of one of the maps.

        Parameters
        ----------
        contexts : ContextMap
            The map.
        by_class : ndarray, shape (histories, CLASSES, ...), optional
            What to sum instead.
        """
        values = self.by_class if by_class is None else by_class
        starts = np.arange(0, CLASSES, 1 << contexts.shift)
        found = np.add.reduceat(values, starts, axis=1)
        found = found[:, contexts.first : contexts.first + contexts.width]
        if not contexts.use_history:
            found = found.sum(axis=0)
        return found.reshape(contexts.size, *values.shape[2:])

    def best_map(self, bits_per_code: float, bits_per_table: float) -> ContextMap:
        """Return the map with the fewest bits, tables included."""

        def bits(contexts: ContextMap) -> float:
            tables = self.merged(contexts)
            codes = bits_per_code * np.count_nonzero(tables)
            return entropy_bits(tables) + codes + bits_per_table * contexts.size

        return min(self.maps(), key=bits)
