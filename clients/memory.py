"""Memory that is free goes back to the system before more of it is needed."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_BYTES = 16 << 20
"""For a smaller model a collection takes longer than it is worth."""


@contextmanager
def collecting_less() -> Iterator[None]:
    """Have collections pass over what is there now, such as imported libraries.

    With torch imported, one that does not takes most of a tenth of a second. Where
    somebody else froze objects already, nothing is done.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
