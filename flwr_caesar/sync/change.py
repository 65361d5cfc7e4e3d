"""What changed of a file's bytes, in fewer bytes than all of them.

A model that was trained further has the elements of the one before, changed in their
last bits. What differs is zero elsewhere, and in each element mostly in its low bytes,
so bytes of equal weight are put together and compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import zstandard

from flwr_caesar.codec.contract.layout import Array, Arrays

from .errors import DamagedStateError
from .tensors import Chunk

_BLOCK = 1 << 20
_WIDTH = 4
# More than this saves no disk: level 3 is as large on such bytes.
_LEVEL = 1
DATA, SIZES = "data", "sizes"


def pack_change(old: Array, new: Iterable[Chunk], *, most: int) -> Arrays | None:
    """Return how to make some bytes of others; `None` if that takes more than `most`.

    Parameters
    ----------
    old : ndarray of uint8, shape (n,)
        The bytes before.
    new : iterable of bytes
        Those after, in pieces, n in all.
    most : int
        Bytes.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    parts: list[bytes] = []
    sizes: list[int] = []
    total = at = 0
    for block in _blocks(new):
        differs = np.bitwise_xor(old[at : at + block.size], block)
        at += block.size
        sizes.append(block.size)
        parts.append(compressor.compress(_shuffled(differs)))
        total += len(parts[-1])
        if total > most:
            return None
    return {
        DATA: np.frombuffer(b"".join(parts), np.uint8),
        SIZES: np.array([sizes, [len(part) for part in parts]], np.int64),
    }


def apply_change(image: Array, change: Arrays) -> None:
    """Make the bytes after of the bytes before, in place.

    Parameters
    ----------
    image : ndarray of uint8, shape (n,)
        The bytes before.
    change : mapping of str to ndarray
        From `pack_change`.

    Raises
    ------
    DamagedStateError
        If it is no change of so many bytes.
    """
    try:
        data, (sizes, lengths) = change[DATA], change[SIZES].tolist()
        if sum(sizes) != image.size or not all(0 < size <= _BLOCK for size in sizes):
            raise ValueError("it is of other bytes")
        decompressor = zstandard.ZstdDecompressor()
        at = first = 0
        for size, length in zip(sizes, lengths, strict=True):
            packed = data[first : first + length].tobytes()
            raw = decompressor.decompress(packed, max_output_size=size)
            image[at : at + size] ^= _unshuffled(np.frombuffer(raw, np.uint8))
            at, first = at + size, first + length
    except (KeyError, TypeError, ValueError, zstandard.ZstdError) as err:
        raise DamagedStateError(f"a change of the model is malformed: {err}") from err


def _blocks(chunks: Iterable[Chunk]) -> Iterator[Array]:
    for chunk in chunks:
        data = np.frombuffer(chunk, np.uint8)
        for start in range(0, data.size, _BLOCK):
            yield data[start : start + _BLOCK]


def _shuffled(block: Array) -> bytes:
    whole = block.size - block.size % _WIDTH
    planes = block[:whole].reshape(-1, _WIDTH).T
    return planes.tobytes() + block[whole:].tobytes()


def _unshuffled(data: Array) -> Array:
    whole = data.size - data.size % _WIDTH
    block = np.empty(data.size, np.uint8)
    block[:whole].reshape(-1, _WIDTH)[:] = data[:whole].reshape(_WIDTH, -1).T
    block[whole:] = data[whole:]
    return block
