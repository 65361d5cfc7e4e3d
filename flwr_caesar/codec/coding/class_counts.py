"""Which context map takes the fewest bits, by how often symbols occur in classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..contract.layout import Array
from .blocks import blocks
from .contexts import CLASSES, HISTORIES, Classes, ContextMap
from .counts import Symbols, count_symbols

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
    best, _ = counts.best_map(_BITS_PER_CODE, _BITS_PER_TABLE)
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
            alphabet = int(symbols.max(initial=0)) + 1
            counts = np.zeros((HISTORIES * CLASSES, alphabet), np.int64)
            for part in blocks(len(symbols), _COUNTED):
                fine = histories[part].astype(np.uint16) * np.uint16(CLASSES)
                fine += classes[part]
                found = count_symbols(symbols[part], fine, len(counts))
                counts[:, : found.shape[1]] += found
        self.by_class: Array = counts.reshape(-1, CLASSES, counts.shape[1])

    def best(
        self, sums: Array, bits: Callable[[Array], Array]
    ) -> tuple[ContextMap, float]:
        """Return the map with the fewest bits, and these.

        Parameters
        ----------
        sums : ndarray, shape (histories, CLASSES, ...)
            What the bits of a context depend on, as sums over its classes: integers.
        bits : callable
            Given such sums of several contexts, the bits that each of them takes.
        """
        used = np.flatnonzero(self.by_class.any(axis=(0, 2)))
        low, high = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        maps, rows = [], []
        merged = sums
        for shift in _SHIFTS:
            first, width = low >> shift, (high >> shift) - (low >> shift) + 1
            merged = merged[:, ::2] + merged[:, 1::2]  # of integers: in any order
            found = merged[:, first : first + width]
            for use_history in (False, True) if len(found) > 1 else (False,):
                maps.append(ContextMap(shift, first, width, use_history))
                own = found if use_history else found.sum(axis=0)
                rows.append(own.reshape(-1, *sums.shape[2:]))
        starts = np.cumsum([0, *map(len, rows[:-1])])
        total = np.add.reduceat(bits(np.concatenate(rows)), starts)
        least = int(total.argmin())
        return maps[least], float(total[least])

    def merged(self, contexts: ContextMap) -> Array:
        """Return how often symbols occur in the contexts of one of the maps."""
        found = _merged(self.by_class, contexts.shift)
        found = found[:, contexts.first : contexts.first + contexts.width]
        if not contexts.use_history:
            found = found.sum(axis=0)
        return found.reshape(contexts.size, -1)

    def best_map(
        self, bits_per_code: float, bits_per_table: float
    ) -> tuple[ContextMap, float]:
        """Return the map with the fewest bits, tables included, and these."""

        def bits(tables: Array) -> Array:
            logs = n_log_n(tables.sum(axis=1)) - n_log_n(tables).sum(axis=1)
            codes = np.count_nonzero(tables, axis=1)
            found: Array = logs + bits_per_code * codes + bits_per_table
            return found

        return self.best(self.by_class, bits)


def n_log_n(n: Array) -> Array:
    """Return ``n log2 n``; 0 for 0."""
    found: Array = n * np.log2(np.maximum(n, 1))
    return found


def _merged(values: Array, shift: int) -> Array:
    return np.add.reduceat(values, np.arange(0, CLASSES, 1 << shift), axis=1)
