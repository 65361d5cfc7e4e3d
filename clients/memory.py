"""Memory that is free goes back to the system before more of it is needed."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Free what only cycles hold, and return free memory to the system.

    Flower's RecordDict and its views are such a cycle, so a model that is dropped stays
    until the next collection. And the C library keeps freed arrays of up to 32 MB for
    later ones (mallopt(3), ``M_MMAP_THRESHOLD``), which longer ones cannot use. Without
    glibc only the former is done.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
