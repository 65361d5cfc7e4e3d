"""What changed of some bytes, in fewer bytes than all of them.

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

_BLOCK = 1 << 20
_WIDTH = 4
_FIRST_BYTES = 256
# More than this saves no disk: level 3 is as large on such bytes.
_LEVEL = 1
DATA, SIZES = "data", "sizes"


def pack_changes(pairs: Iterable[tuple[Array, Array]]) -> Iterator[bytes]:
    """Return what changed in each of some blocks, nothing where nothing did.

    Parameters
    ----------
    pairs : iterable of tuple of ndarray of uint8
        The bytes of a block before and after, of one shape ``(n,)``.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    for old, new in pairs:
        if differ(old, new):
            yield compressor.compress(_shuffled(np.bitwise_xor(old, new)))
        else:
            yield b""


def differ(old: Array, new: Array) -> bool:
    """Whether bytes differ; those of trained models do so from the beginning."""
    return not (
        np.array_equal(old[:_FIRST_BYTES], new[:_FIRST_BYTES])
        and np.array_equal(old, new)
    )


def apply_changes(block: Array, changes: Iterable[bytes]) -> None:
    """Make the bytes after of the bytes before, in place.

    Parameters
    ----------
    block : ndarray of uint8, shape (n,)
        The bytes before.
    changes : iterable of bytes
        From `pack_changes`, one after another.

    Raises
    ------
    DamagedStateError
        If one is no change of so many bytes.
    """
    decompressor = zstandard.ZstdDecompressor()
    differs: Array | None = None
    for change in filter(None, changes):
        try:
            raw = decompressor.decompress(change, max_output_size=block.size)
        except zstandard.ZstdError as err:
            raise DamagedStateError(f"a change of the model: {err}") from err
        if len(raw) != block.size:
            raise DamagedStateError(f"a change of the model has {len(raw)} bytes")
        step = np.frombuffer(raw, np.uint8)
        differs = step if differs is None else np.bitwise_xor(differs, step)
    if differs is not None:
        block ^= _unshuffled(differs)


def apply_change(image: Array, change: Arrays) -> None:
    """Make a model's bytes of those before, in place, as format 4 has the change.

    Parameters
    ----------
    image : ndarray of uint8, shape (n,)
        The bytes before.
    change : mapping of str to ndarray
        ``data``, ndarray of uint8, and ``sizes``, ndarray of int64, shape (2, blocks):
        of how many bytes of the image each block of the data is, and its own.

    Raises
    ------
    DamagedStateError
        If it is no change of so many bytes.
    """
    try:
        data, (sizes, lengths) = change[DATA], change[SIZES].tolist()
        if sum(sizes) != image.size or not all(0 < size <= _BLOCK for size in sizes):
            raise ValueError("it is of other bytes")
        at = first = 0
        for size, length in zip(sizes, lengths, strict=True):
            packed = data[first : first + length].tobytes()
            apply_changes(image[at : at + size], [packed])
            at, first = at + size, first + length
    except (KeyError, TypeError, ValueError) as err:
        raise DamagedStateError(f"a change of the model is malformed: {err}") from err


def _shuffled(block: Array) -> bytes:
    whole = block.size - block.size % _WIDTH
    planes = block[:whole].reshape(-1, _WIDTH).T
    return planes.tobytes() + block[whole:].tobytes()


def _unshuffled(data: Array) -> Array:
    whole = data.size - data.size % _WIDTH
    block = np.empty(data.size, np.uint8)
    for plane, values in enumerate(data[:whole].reshape(_WIDTH, -1)):
        block[plane:whole:_WIDTH] = values
    block[whole:] = data[whole:]
    return block
