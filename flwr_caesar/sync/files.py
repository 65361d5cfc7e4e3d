"""Files of arrays that are on the disk when a call returns, and whole when they load.

A file is never changed: what is new gets a name of its own. Links are not followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.frozen import frozen

from .errors import DamagedStateError
from .mapped import map_file
from .tensors import (
    BLOCK_BYTES,
    LENGTH_BYTES,
    Chunk,
    TensorTable,
    checksum,
    head_bytes,
    to_chunks,
)

_OURS = re.compile(r"[a-z]+-[0-9a-f]{16}\.(safetensors|tmp)")


@frozen
class StoredFile:
    """A file as it was written, to recognise it when it is read.

    Parameters
    ----------
    name : str
        In its folder.
    size : int
        Bytes.
    checksum : int
        Of the bytes, see `checksum`; it detects damage, not forgery.
    """

    name: str
    size: int
    checksum: int

    @classmethod
    def from_json(cls, row: Any) -> StoredFile:
        """Check and take a row of a manifest.

        Raises
        ------
        DamagedStateError
            If it is not a name, a size and a checksum of a file of ours.
        """
        match row:
            case [str(name), int(size), int(checksum)] if _OURS.fullmatch(name):
                return cls(name, size, checksum)
        raise DamagedStateError(f"the manifest names a file as {row!r}")

    def to_json(self) -> list[str | int]:
        """Return the row of a manifest."""
        return [self.name, self.size, self.checksum]

    def holds(self, folder: Path, chunks: Collection[Chunk], sum_of: int) -> bool:
        """Whether the file of `folder` can be read and has these bytes.

        Equal checksums do not tell: an upload ends with a CRC of its own, after which
        the CRC of everything is the same for all uploads of one length.

        Parameters
        ----------
        folder : Path
            Where the file is.
        chunks : collection of bytes
            What it may have.
        sum_of : int
            Their checksum.
        """
        size = sum(memoryview(chunk).nbytes for chunk in chunks)
        return (size, sum_of) == (self.size, self.checksum) and _has_bytes(
            folder / self.name, chunks
        )


def fresh_name(kind: str, suffix: str = "safetensors") -> str:
    """Return a file name that was never used; `kind` is in lower case letters."""
    return f"{kind}-{os.urandom(8).hex()}.{suffix}"


def is_fresh_name(name: str) -> bool:
    """Whether a name is one of `fresh_name`'s."""
    return bool(_OURS.fullmatch(name))


def _has_bytes(path: Path, chunks: Collection[Chunk]) -> bool:
    try:
        with path.open("rb") as file:
            for chunk in chunks:
                rest = memoryview(chunk).cast("B")
                while rest:
                    found = file.read(min(len(rest), BLOCK_BYTES))
                    if not found or found != rest[: len(found)]:
                        return False
                    rest = rest[len(found) :]
            return not file.read(1)
    except OSError:
        return False


def write_durably(
    path: Path, chunks: Collection[Chunk], sum_of: int | None = None
) -> StoredFile:
    """Write a new file that only its owner can read, and wait for the disk.

    Parameters
    ----------
    path : Path
        Of the file.
    chunks : collection of bytes
        What to write.
    sum_of : int, optional
        Its checksum, if that is known.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        size = 0
        for chunk in chunks:
            rest = memoryview(chunk)
            size += rest.nbytes
            while rest:
                rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return StoredFile(path.name, size, checksum(chunks) if sum_of is None else sum_of)


def write_arrays(folder: Path, kind: str, arrays: Arrays) -> StoredFile:
    """Write arrays to a new file of `folder`, durably."""
    return write_durably(folder / fresh_name(kind), to_chunks(arrays))


def read_arrays(folder: Path, stored: StoredFile) -> dict[str, Array]:
    """Read arrays back, into memory.

    Raises
    ------
    DamagedStateError
        If the file is not there, or its bytes were read and are not what was written.
    OSError
        If it cannot be read, which says nothing of what it holds.
    """
    data = read_bytes(folder, stored)
    return table_of(data).views(data)


def read_bytes(folder: Path, stored: StoredFile) -> Array:
    """Return the bytes of a file of arrays, shape ``(size,)``, uint8, in memory.

    Raises
    ------
    DamagedStateError, OSError
        As `read_arrays`.
    """
    with opened(folder, stored) as fd:
        data = np.empty(stored.size, np.uint8)
        fill(fd, 0, data.data)
        if checksum(pieces_of(data)) != stored.checksum:
            raise DamagedStateError("it has the wrong checksum")
    return data


def table_of(data: Array) -> TensorTable:
    """Return where which array is in the bytes of a file.

    Raises
    ------
    DamagedStateError
        If they are none.
    """
    start = data[:LENGTH_BYTES].tobytes()
    head = data[: head_bytes(start, data.size)].tobytes()
    return TensorTable.parse(head, data.size)


def pieces_of(data: Array) -> list[Chunk]:
    """Return the bytes of a file in the pieces in which `to_chunks` made them.

    Raises
    ------
    DamagedStateError
        If they are none.
    """
    table = table_of(data)
    arrays = (data[begin:end].data for begin, end in table.spans())
    return [data[: table.start].data, *arrays]


def map_arrays(folder: Path, stored: StoredFile) -> dict[str, Array]:
    """Return the arrays of a file as memory that is read from it when it is used.

    The file is read once, a block at a time, to see that it is whole. The arrays can be
    changed; the file does not. They stay valid after the file is removed.

    Raises
    ------
    DamagedStateError, OSError
        As `read_arrays`.
    """
    with opened(folder, stored) as fd:
        start = read_at(fd, 0, min(LENGTH_BYTES, stored.size))
        head = read_at(fd, 0, head_bytes(start, stored.size))
        table = TensorTable.parse(head, stored.size)
        if checksum(_blocks(fd, table), checksum([head])) != stored.checksum:
            raise DamagedStateError("it has the wrong checksum")
        return table.views(map_file(fd, stored.size))


def read_small(path: Path, *, most: int) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    DamagedStateError
        If it has more than `most`.
    OSError
        If it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size > most:
            raise DamagedStateError(f"{path.name} has {size} bytes")
        return read_at(fd, 0, size)
    finally:
        os.close(fd)


def replace_durably(folder: Path, name: str, data: bytes) -> None:
    """Put a small file in place in one step; afterwards `sync_folder` is due."""
    temporary = folder / fresh_name("manifest", "tmp")
    write_durably(temporary, [data])
    try:
        os.replace(temporary, folder / name)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_others(folder: Path, keep: Iterable[str]) -> None:
    """Remove files that this module wrote to a folder, but those in `keep`."""
    kept = set(keep)
    for entry in os.scandir(folder):
        if is_fresh_name(entry.name) and entry.name not in kept:
            os.unlink(entry.path)


@contextmanager
def opened(folder: Path, stored: StoredFile) -> Iterator[int]:
    """Open a file that must be there; say its name in what is wrong with it."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(folder / stored.name, flags)
        try:
            if os.fstat(fd).st_size != stored.size:
                raise DamagedStateError("it is torn")
            yield fd
        finally:
            os.close(fd)
    except FileNotFoundError as err:
        raise DamagedStateError(f"{stored.name} is missing") from err
    except DamagedStateError as err:
        raise DamagedStateError(f"{stored.name}: {err}") from err


def _blocks(fd: int, table: TensorTable) -> Iterator[memoryview]:
    """Read the arrays of a file, always into the same block."""
    block = memoryview(bytearray(BLOCK_BYTES))
    for begin, end in table.spans():
        for offset in range(begin, end, BLOCK_BYTES):
            part = block[: min(BLOCK_BYTES, end - offset)]
            fill(fd, offset, part)
            yield part


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return bytes of a file.

    Raises
    ------
    DamagedStateError
        If it ends before.
    """
    data = bytearray(size)
    fill(fd, offset, memoryview(data))
    return bytes(data)


def fill(fd: int, offset: int, buffer: memoryview) -> None:
    """Read bytes of a file into a buffer.

    Raises
    ------
    DamagedStateError
        If it ends before.
    """
    filled = 0
    while filled < buffer.nbytes:
        count = os.preadv(fd, [buffer[filled:]], offset + filled)
        if not count:
            raise DamagedStateError("it is torn")
        filled += count
