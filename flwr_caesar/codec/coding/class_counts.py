"""Which context map takes the fewest bits, by how often symbols occur in classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..contract.layout import Array
from .blocks import blocks
from .contexts import CLASSES, HISTORIES, Classes, ContextMap
from .counts import Symbols, count_symbols, entropy_bits
from .tables import MAX_ALPHABET

_BITS_PER_CODE = 4
_BITS_PER_TABLE = 20
_COUNTED = 1 << 18


def choose_contexts(
    symbols: Symbols,
    classes: Classes,
    histories: Classes | None,
    bits_per_code: float = _BITS_PER_CODE,
    bits_per_table: float = _BITS_PER_TABLE,
) -> tuple[ContextMap, Array]:
    """Choose the map with the fewest bits, tables included.

    Returns
    -------
    tuple of ContextMap and ndarray of int64, shape (contexts, alphabet)
        The map, and how often each symbol up to the largest occurs in its contexts, as
        `counts.count_symbols` would find.
    """
    counts = ClassCounts(symbols, classes, histories)
    best = counts.best_map(bits_per_code, bits_per_table)
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
        self._kinds = 1 if histories is None else HISTORIES
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
        self._counts = counts.reshape(self._kinds, CLASSES, counts.shape[1])

    def merged(self, contexts: ContextMap) -> Array:
        """Return how often symbols occur in the contexts of a map."""
        by_class = self._counts
        if not contexts.use_history:
            by_class = by_class.sum(axis=0, keepdims=True)
        one = replace(contexts, use_history=False)
        index = one.contexts(np.arange(CLASSES, dtype=np.uint8), None)
        chosen = index == np.arange(contexts.width)[:, np.newaxis]
        found: Array = chosen.astype(np.int64) @ by_class
        return found.reshape(contexts.size, -1)

    def best_map(self, bits_per_code: float, bits_per_table: float) -> ContextMap:
        """Return the map with the fewest bits, tables included."""
        by_class = self._counts
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
