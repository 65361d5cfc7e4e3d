"""How often symbols occur in their contexts, and the bits that these take."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.layout import Array
from ..kernel import compiled
from .blocks import blocks

Symbols = np.ndarray[Any, np.dtype[np.uint16]]

_CONTEXTS = (np.uint8, np.uint16)


def count_symbols(symbols: Symbols, contexts: Array, num_contexts: int) -> Array:
    """Return how often each symbol up to the largest occurs in each context.

    Returns
    -------
    ndarray of int64, shape (num_contexts, alphabet)
        The alphabet ends with the largest symbol.
    """
    alphabet = int(symbols.max(initial=0)) + 1
    joint = np.zeros(num_contexts * alphabet, np.int64)
    if (native := compiled()) is not None and contexts.dtype in _CONTEXTS:
        kept = np.ascontiguousarray(symbols), np.ascontiguousarray(contexts)
        native.count(*kept, joint, alphabet)
        return joint.reshape(num_contexts, alphabet)
    for part in blocks(len(symbols)):
        index = contexts[part].astype(np.int64)
        index *= alphabet
        index += symbols[part]
        joint += np.bincount(index, minlength=len(joint))
    return joint.reshape(num_contexts, alphabet)


def entropy_bits(counts: Array) -> float:
    """Return the order-0 entropy of all contexts together, in bits."""
    totals = counts.sum(axis=-1)
    return _sum_n_log_n(totals) - _sum_n_log_n(counts)


def _sum_n_log_n(counts: Array) -> float:
    n = counts[counts > 0].astype(np.float64)
    return float((n * np.log2(n)).sum())
