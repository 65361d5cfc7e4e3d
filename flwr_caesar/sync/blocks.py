"""Blocks of a model's bytes, of which each file has some whole and others as changes.

A file of changes has two arrays: ``data``, the blocks one after another, and
``lengths``, how many bytes each has there. Which blocks are whole in it is for the
manifest to say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise

import numpy as np

from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.frozen import frozen

from .change import DATA
from .errors import DamagedStateError
from .files import StoredFile, fill, read_at
from .tensors import LENGTH_BYTES, Chunk, TensorTable, head_bytes

TURNS = 6
"""After so many rounds each block that changes was written whole once more."""

LENGTHS = "lengths"
MODEL = "model"
_BLOCK, _ALIGNED = 1 << 17, 1 << 12


def cut(size: int) -> list[tuple[int, int]]:
    """Return where the blocks of a model of `size` bytes begin and end."""
    block = min(_BLOCK, -(-size // TURNS // _ALIGNED) * _ALIGNED)
    return [(at, min(at + block, size)) for at in range(0, size, block or 1)]


class Image:
    """A file's bytes in pieces, as if they were in one.

    Parameters
    ----------
    chunks : collection of bytes
        The pieces.
    """

    def __init__(self, chunks: Collection[Chunk]) -> None:
        self._pieces = [np.frombuffer(c, np.uint8) for c in chunks if len(c)]
        self._ends = list(accumulate(piece.size for piece in self._pieces))

    def part(self, begin: int, end: int) -> Array:
        """Return some of the bytes, uint8, a view if they are in one piece."""
        parts = []
        while begin < end:
            index = bisect_right(self._ends, begin)
            piece = self._pieces[index]
            start = begin - (self._ends[index] - piece.size)
            parts.append(piece[start : start + end - begin])
            begin += parts[-1].size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@frozen
class BlockFile:
    """A file that has blocks of a model.

    Parameters
    ----------
    fd : int
        To read from.
    spans : sequence of tuple of int
        Where each block begins and ends in the file; nothing is there of a block that
        did not change.
    """

    fd: int
    spans: Sequence[tuple[int, int]]

    @classmethod
    def read(cls, fd: int, stored: StoredFile, size: int) -> BlockFile:
        """Find the blocks of a model of `size` bytes in an open file.

        Raises
        ------
        DamagedStateError
            If they are not there.
        """
        blocks = cut(size)
        if stored.name.startswith(MODEL):
            if stored.size != size:
                raise DamagedStateError(f"{stored.name} is of another model")
            return cls(fd, blocks)
        start = read_at(fd, 0, min(LENGTH_BYTES, stored.size))
        head = read_at(fd, 0, head_bytes(start, stored.size))
        places = {
            name: (dtype.name, shape, begin)
            for name, dtype, shape, begin, _ in TensorTable.parse(
                head, stored.size
            ).rows
        }
        match places.get(LENGTHS), places.get(DATA):
            case ("int64", (int(count),), where), ("uint8", (int(total),), begin):
                lengths = np.frombuffer(read_at(fd, where, 8 * count), "<i8").tolist()
                fits = count == len(blocks) and sum(lengths) == total
                if fits and min(lengths, default=0) >= 0:
                    return cls(fd, list(pairwise(accumulate(lengths, initial=begin))))
        raise DamagedStateError(f"{stored.name} has no blocks of the model")

    def has(self, block: int) -> bool:
        """Whether there is anything of a block."""
        begin, end = self.spans[block]
        return begin < end

    def read_whole(self, block: int, into: Array) -> None:
        """Read a block that is there whole, shape ``(n,)``, uint8.

        Raises
        ------
        DamagedStateError
            If it has another size.
        """
        begin, end = self.spans[block]
        if end - begin != into.size:
            raise DamagedStateError(f"a block of the model has {end - begin} bytes")
        fill(self.fd, begin, into.data)

    def change(self, block: int) -> bytes:
        """Return how a block changed."""
        begin, end = self.spans[block]
        return read_at(self.fd, begin, end - begin)


def blocks_file(data: Array, lengths: Sequence[int]) -> Arrays:
    """Return the arrays of a file of changes: blocks in a row, and their lengths."""
    return {DATA: data, LENGTHS: np.array(lengths, np.int64)}


def due(
    starts: Sequence[int], changes: Collection[int], spared: int | None
) -> set[int]:
    """Return which blocks to write whole this time.

    Parameters
    ----------
    starts : sequence of int
        In which file each block is whole, the oldest first.
    changes : collection of int
        Blocks of which there are changes, those of this time included.
    spared : int, optional
        The file of which blocks without changes may stay as they are for ever.

    Returns
    -------
    set of int
        Those that were written whole the longest time ago: as many as make all come
        up in `TURNS` rounds.
    """
    turning = [b for b, at in enumerate(starts) if at != spared or b in changes]
    turning.sort(key=lambda block: starts[block])
    return set(turning[: -(-len(turning) // TURNS)])
