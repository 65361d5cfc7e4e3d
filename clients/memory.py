"""Memory that is free goes back to the system before more of it is needed."""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

LEAST_BYTES = 16 << 20
"""For a smaller model a collection takes longer than it is worth."""


_messages = itertools.count()
_frozen_here = threading.Event()


@contextmanager
def collecting_less() -> Iterator[None]:
    """Have collections in a process's first message pass over what was there before it.

    On a SuperNode each message has a process of its own, and there is little else than
    libraries then: with torch, a collection of them takes most of a tenth of a second.
    In a process that has handled a message before, as in a simulation, what was there
    may be another message's garbage, and is collected. Where somebody else froze
    objects already, nothing is done.
    """
    if next(_messages) or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    _frozen_here.set()
    try:
        yield
    finally:
        _thaw()


def _thaw() -> None:
    """Have collections look at everything again, if it was not so because of us."""
    if _frozen_here.is_set():
        _frozen_here.clear()
        gc.unfreeze()


def give_back(nbytes: int, *, dropped: Iterable[ref[Any]] = ()) -> None:
    """Free what only cycles hold, and return free memory to the system.

    Parameters
    ----------
    nbytes : int
        What a model takes; nothing is done below `LEAST_BYTES`.
    dropped : iterable of weakref.ref
        To what came with the message and is not needed any more.

    Notes
    -----
    A view of Flower's RecordDict is such a cycle, and holds the records that it was
    made of, so a model that is dropped stays until the next collection. And the C
    library keeps freed arrays of up to 32 MB for later ones (mallopt(3),
    ``M_MMAP_THRESHOLD``), which longer ones cannot use. Without glibc only the former
    is done. Views are mostly younger than the first message's handling; what
    `collecting_less` passes over is looked at only where something dropped stays.
    """
    if nbytes < LEAST_BYTES:
        return
    gc.collect()
    if _frozen_here.is_set() and any(each() is not None for each in dropped):
        _thaw()
        gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
