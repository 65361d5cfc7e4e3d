"""Arrays in safetensors files that are on the disk when a call returns.

The format is https://github.com/huggingface/safetensors, whose own writer copies all
arrays once more and whose numpy reader lacks bfloat16. Tensors keep their order in the
header; their data is sorted by item size, so that every array is aligned.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec.layout import Array, Arrays, to_dtype

from .errors import DamagedStateError, StateError

_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_NAMES = {code: name for name, code in _CODES.items()}
_METADATA = "__metadata__"
_ROW_BYTES = 1 << 13
_BLOCK_ROWS = 128
_OURS = re.compile(r"[a-z]+-[0-9a-f]{16}\.(safetensors|tmp)")
Chunk = memoryview | bytes


@dataclass(frozen=True)
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


def fresh_name(kind: str, suffix: str = "safetensors") -> str:
    """Return a file name that was never used; `kind` is in lower case letters."""
    return f"{kind}-{os.urandom(8).hex()}.{suffix}"


def checksum(chunks: Iterable[Chunk]) -> int:
    """Return a checksum of bytes in pieces, at the speed of memory.

    Each block of a piece is a matrix of 64-bit words; the sums of its rows and of its
    columns go into a CRC-32, and so do the bytes left over. Any change to a single
    word, a torn page and two swapped words change it. Where a long piece begins and
    ends counts.
    """
    crc = 0
    for chunk in chunks:
        words, rest = divmod(memoryview(chunk).nbytes, _ROW_BYTES)
        end = words * _ROW_BYTES
        if words:
            matrix = np.frombuffer(chunk, "<u8", end // 8).reshape(words, -1)
            for start in range(0, words, _BLOCK_ROWS):
                block = matrix[start : start + _BLOCK_ROWS]
                crc = zlib.crc32(block.sum(axis=1).data, crc)
                crc = zlib.crc32(block.sum(axis=0).data, crc)
        if rest:
            crc = zlib.crc32(memoryview(chunk)[end:], crc)
    return crc


def to_chunks(arrays: Arrays) -> list[Chunk]:
    """Return the bytes of a safetensors file of `arrays`, without copying them.

    Raises
    ------
    StateError
        If a name or dtype cannot be stored.
    """
    header: dict[str, Any] = {}
    rows: list[tuple[int, str, Array]] = []
    for name, array in arrays.items():
        dtype = array.dtype.name
        if dtype not in _CODES or name == _METADATA:
            raise StateError(f"an array {name!r} of dtype {dtype} cannot be kept")
        header[name] = {"dtype": _CODES[dtype], "shape": list(array.shape)}
        flat = np.ascontiguousarray(array, to_dtype(dtype)).reshape(-1)
        rows.append((flat.itemsize, name, flat.view(np.uint8)))
    rows.sort(key=lambda row: -row[0])
    offset = 0
    for _, name, raw in rows:
        header[name]["data_offsets"] = [offset, offset + raw.nbytes]
        offset += raw.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)) + text, *(raw.data for _, _, raw in rows)]


def from_bytes(data: Array) -> tuple[dict[str, Array], list[Chunk]]:
    """Return the arrays of a safetensors file as views, and the file's chunks.

    Parameters
    ----------
    data : ndarray, shape (size,), uint8
        The whole file.

    Raises
    ------
    DamagedStateError
        If it is malformed.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        start = 8 + length
        header = json.loads(data[8:start].tobytes())
        arrays = {}
        pieces = []
        for name, row in header.items():
            begin, end = row["data_offsets"]
            raw = data[start + begin : start + end]
            if begin < 0 or raw.size != end - begin:
                raise DamagedStateError(f"array {name!r} is cut off")
            dtype = to_dtype(_NAMES[row["dtype"]])
            arrays[name] = raw.view(dtype).reshape(row["shape"])
            pieces.append((begin, raw.data))
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as err:
        raise DamagedStateError(f"not what was written: {err!r}") from err
    pieces.sort(key=lambda piece: piece[0])
    return arrays, [data[:start].data, *(raw for _, raw in pieces)]


def write_durably(path: Path, chunks: Collection[Chunk]) -> StoredFile:
    """Write a new file that only its owner can read, and wait for the disk."""
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
    return StoredFile(path.name, size, checksum(chunks))


def write_arrays(folder: Path, kind: str, arrays: Arrays) -> StoredFile:
    """Write arrays to a new file of `folder`, durably."""
    return write_durably(folder / fresh_name(kind), to_chunks(arrays))


def read_arrays(folder: Path, stored: StoredFile) -> dict[str, Array]:
    """Read arrays back.

    Raises
    ------
    DamagedStateError
        If the file is not what was written.
    OSError
        If it cannot be read.
    """
    with open(folder / stored.name, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != stored.size:
            raise DamagedStateError(f"{stored.name} is torn")
        data = np.empty(stored.size, np.uint8)
        filled = 0
        while filled < stored.size:
            count = file.readinto(data[filled:].data)
            if not count:
                raise DamagedStateError(f"{stored.name} is torn")
            filled += count
    try:
        arrays, chunks = from_bytes(data)
    except DamagedStateError as err:
        raise DamagedStateError(f"{stored.name}: {err}") from err
    if checksum(chunks) != stored.checksum:
        raise DamagedStateError(f"{stored.name} has the wrong checksum")
    return arrays


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
        if _OURS.fullmatch(entry.name) and entry.name not in kept:
            os.unlink(entry.path)
