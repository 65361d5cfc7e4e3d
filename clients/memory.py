"""Memory that is free goes back to the system before more of it is needed."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_BYTES = 16 << 20
"""For a smaller model a collection takes longer than it is worth."""


def give_back(nbytes: int) -> None:
    """Free what only cycles hold, and return free memory to the system.

    Parameters
    ----------
    nbytes : int
        What a model takes; nothing is done below `LEAST_BYTES`.

    Notes
    -----
    Flower's RecordDict and its views are such a cycle, so a model that is dropped stays
    until the next collection. And the C library keeps freed arrays of up to 32 MB for
    later ones (mallopt(3), ``M_MMAP_THRESHOLD``), which longer ones cannot use. Without
    glibc only the former is done.
    """
    if nbytes < LEAST_BYTES:
        return
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


# mallopt(3): what these are called in malloc.h, and what glibc lets them grow to.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_APART, _MOST = 1 << 20, 32 << 20


@contextmanager
def apart(nbytes: int) -> Iterator[None]:
    """Have arrays of 1 MB or more in memory of their own, which goes back when freed.

    For the time in which a model is encoded: it passes through arrays of many sizes,
    and what one leaves on the heap is seldom of use to the next. Training is better off
    without, as it allocates the same arrays again and again.

    Parameters
    ----------
    nbytes : int
        What a model takes; nothing is done below `LEAST_BYTES`, or without glibc.
    """
    if nbytes < LEAST_BYTES:
        yield
        return
    _set(_M_MMAP_THRESHOLD, _APART)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, _MOST)
        _set(_M_TRIM_THRESHOLD, 2 * _MOST)


def _set(what: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(what, value)
    except (OSError, AttributeError):
        return
