"""Memory that is read from a file when it is used, and that can be let go of."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from flwr_caesar.codec.contract.layout import Array


def map_file(fd: int, size: int) -> Array:
    """Return the bytes of a file, shape ``(size,)``, uint8.

    They can be changed; the file does not. They stay valid after it is removed.
    """
    return np.frombuffer(mmap.mmap(fd, size, access=mmap.ACCESS_COPY), np.uint8)


class ReadInTurn(Mapping[str, Array]):
    """Arrays of which those that were read before the last few are let go.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Not written to.
    """

    _AT_A_TIME = 4
    """What a codec remembers of one tensor."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self._read = deque[Array]()

    def __getitem__(self, name: str) -> Array:
        """Return an array by name, and let go of an earlier one."""
        array = self._arrays[name]
        if not any(array is each for each in self._read):
            self._read.append(array)
        if len(self._read) > self._AT_A_TIME:
            let_go([self._read.popleft()])
        return array

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self._arrays)


def let_go(arrays: Iterable[Array]) -> None:
    """Tell the system that arrays will not be used soon.

    Those that are read from a file take no memory until they are used again; what was
    changed in them may be as in the file then. Others are not touched.
    """
    for array in arrays:
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, memoryview):  # as numpy 2 has it
            base = base.obj
        if not isinstance(base, mmap.mmap) or not array.flags.c_contiguous:
            continue
        start = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        # Whole pages only: what is beside the array is none of its business.
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = (start + array.nbytes - first) // mmap.PAGESIZE
        if pages > 0:
            base.madvise(mmap.MADV_DONTNEED, first, pages * mmap.PAGESIZE)
