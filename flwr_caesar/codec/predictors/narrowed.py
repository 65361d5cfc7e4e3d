"""Averages that are remembered in 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.vector import Vector

Narrow = np.ndarray[Any, np.dtype[np.uint16]]


def narrow(values: Vector) -> Narrow:
    """Keep the upper 16 bits of float32 values: memory for averages, towards zero."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def widen(words: Narrow) -> Vector:
    """Return `narrow` values as float32."""
    return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
