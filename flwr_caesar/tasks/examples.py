"""Inputs and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Examples:
    """Some examples of a task; read-only, because they are shared by a cache.

    Parameters
    ----------
    x : ndarray
        Inputs, shape ``(n, ...)``: float32 images ``(n, channels, height, width)``
        or int64 character codes ``(n, length)``.
    y : ndarray of int64
        Labels, shape ``(n,)``; or one for each position, ``(n, length)``.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        self.x.setflags(write=False)
        self.y.setflags(write=False)

    def __len__(self) -> int:
        return len(self.y)

    def select(self, indices: Array) -> Examples:
        """Return a copy of the examples at `indices`, in their order."""
        return Examples(self.x[indices], self.y[indices])
