"""Column arrays of devices, checked on the way in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import PlanError

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_MAX_SLOT = 1 << 32


def floats(name: str, values: ArrayLike, *, least: float = 0.0) -> Floats:
    """Return `values` as float64, all finite and at least `least`.

    Raises
    ------
    PlanError
        If an element is not; the message names `name`.
    """
    column = np.asarray(values, np.float64)
    if not (np.isfinite(column) & (column >= least)).all():
        raise PlanError(f"{name} must be finite and at least {least:g}")
    return column


def positive(name: str, values: ArrayLike) -> Floats:
    """Return `values` as float64, all finite and above 0.

    Raises
    ------
    PlanError
        If an element is not; the message names `name`.
    """
    column = np.asarray(values, np.float64)
    if not (np.isfinite(column) & (column > 0)).all():
        raise PlanError(f"{name} must be finite and above 0")
    return column


def slot_numbers(slots: ArrayLike, *, distinct: bool = False) -> Ints:
    """Return `slots` as a one-dimensional int64 array.

    Parameters
    ----------
    slots : array of int, shape (n,)
        Numbers that the caller gave to devices, counted from 0: columns grow to the
        largest one.
    distinct : bool
        Whether a slot that occurs twice is an error.

    Raises
    ------
    PlanError
        If they are not non-negative integers below 2^32, or not distinct.
    """
    column = np.asarray(slots)
    if column.ndim != 1 or (column.size and column.dtype.kind not in "iu"):
        raise PlanError("slots must be a one-dimensional array of integers")
    column = column.astype(np.int64)
    if column.size and not 0 <= column.min() <= column.max() < _MAX_SLOT:
        raise PlanError("slots must be at least 0 and below 2^32")
    if distinct and len(np.unique(column)) != len(column):
        raise PlanError("a slot occurs twice; give each device one row")
    return column


def grown(capacity: int, needed: int) -> int:
    """Return a capacity of at least `needed` that at least doubles when it grows."""
    return capacity if needed <= capacity else max(needed, 2 * capacity, 64)


def check_range(name: str, low: float, high: float, *, least: float = 0.0) -> None:
    """Raise `PlanError` unless ``least <= low <= high`` and both are finite."""
    if not least <= low <= high < float("inf"):
        raise PlanError(f"{name}: {low:g} to {high:g} is no range from {least:g} up")
