"""Arrays as the bytes of a safetensors file, without copying them.

The format is https://github.com/huggingface/safetensors, whose own writer copies all
arrays once more and whose numpy reader lacks bfloat16. Tensors keep their order in the
header; their data is sorted by item size, so that every array is aligned.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from flwr_caesar.codec.contract.layout import Array, Arrays, to_dtype
from flwr_caesar.frozen import frozen

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
_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size
_ROW_BYTES = 1 << 13
_BLOCK_ROWS = 128
BLOCK_BYTES = _ROW_BYTES * _BLOCK_ROWS
Chunk = memoryview | bytes


@frozen
class TensorTable:
    """Where which array is in a file.

    Parameters
    ----------
    rows : tuple of tuple
        Name, dtype, shape, and where its bytes begin and end in the file.
    start : int
        Bytes before the first array's.
    """

    rows: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int, int], ...]
    start: int

    @classmethod
    def parse(cls, head: bytes, size: int) -> TensorTable:
        """Read the head of a file.

        Parameters
        ----------
        head : bytes
            The first `head_bytes` of it.
        size : int
            Bytes of the whole file.

        Raises
        ------
        DamagedStateError
            If it is malformed, or an array is cut off.
        """
        rows = []
        try:
            for name, row in json.loads(head[LENGTH_BYTES:]).items():
                begin, end = (len(head) + offset for offset in row["data_offsets"])
                dtype, shape = to_dtype(_NAMES[row["dtype"]]), tuple(row["shape"])
                count = end - begin
                if not len(head) <= begin <= end <= size:
                    raise DamagedStateError(f"array {name!r} is cut off")
                if min(shape, default=0) < 0 or _nbytes(dtype, shape) != count:
                    raise DamagedStateError(f"array {name!r} has {count} bytes")
                rows.append((name, dtype, shape, begin, end))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            OverflowError,
        ) as err:
            raise DamagedStateError(f"not what was written: {err!r}") from err
        return cls(tuple(rows), len(head))

    def spans(self) -> list[tuple[int, int]]:
        """Return where arrays begin and end, in the order of the file."""
        return sorted((begin, end) for *_, begin, end in self.rows)

    def views(self, data: Array) -> dict[str, Array]:
        """Return the arrays as views of the file's bytes, shape ``(size,)``, uint8."""
        return {
            name: data[begin:end].view(dtype).reshape(shape)
            for name, dtype, shape, begin, end in self.rows
        }


def head_bytes(start: bytes, size: int) -> int:
    """Return how long the head of a file is, by its first `LENGTH_BYTES`.

    Raises
    ------
    DamagedStateError
        If the file, of `size` bytes, is shorter.
    """
    if len(start) < LENGTH_BYTES:
        raise DamagedStateError("not what was written: it is cut off")
    length = LENGTH_BYTES + int(_LENGTH.unpack(start)[0])
    if length > size:
        raise DamagedStateError("not what was written: its head is cut off")
    return length


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
    return [_LENGTH.pack(len(text)) + text, *(raw.data for _, _, raw in rows)]


def checksum(chunks: Iterable[Chunk], crc: int = 0) -> int:
    """Return a checksum of bytes in pieces, at the speed of memory.

    Each block of a piece is a matrix of 64-bit words; the sums of its rows and of its
    columns go into a CRC-32, and so do the bytes left over. Any change to a single
    word, a torn page and two swapped words change it. Where a long piece begins and
    ends counts; a piece may be given in pieces of `BLOCK_BYTES`.
    """
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


def _nbytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count
