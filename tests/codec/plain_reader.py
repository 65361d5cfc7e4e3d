"""A second reader of the wire format: the standard library and zstd, no numpy.

Written from docs/wire-format.md alone. It checks what it needs to decode a good frame,
and shows how little a port to another language takes; it is no example of the refusals
that section 7 of that page asks for.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

INTEGERS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32")
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = (*INTEGERS, "uint64", "int64", *FLOATS)
ITEMSIZES = (1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8)
SHUFFLED = {2: 2, 3: 4, 4: 8}


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor table."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        size = 1
        for axis in self.shape:
            size *= axis
        return size

    @property
    def itemsize(self) -> int:
        return ITEMSIZES[DTYPES.index(self.dtype)]


Table = list[Tensor]
Decoded = list[tuple[Tensor, bytes]]


def decode(frame: bytes, table: Table | None = None) -> tuple[Decoded, Table]:
    """Return each tensor with its little-endian elements, and the tensor table."""
    config, digest, sections = read_frame(frame)
    if "TABL" in sections:
        assert hashlib.sha256(sections["TABL"]).digest()[:16] == digest
        table = read_table(sections["TABL"])
    assert table is not None, "the frame needs the table of an earlier one"
    below = config["exact_below"] if config["id"] == "topk" else float("inf")
    lossy = [t for t in table if t.dtype in FLOATS and t.size >= max(below, 1)]
    content = read_exact([t for t in table if t not in lossy], sections)
    if lossy:
        content.update(read_topk(config, lossy, sections))
    return [(tensor, content[tensor.name]) for tensor in table], table


def read_frame(frame: bytes) -> tuple[dict[str, Any], bytes, dict[str, bytes]]:
    """Return configuration, layout digest and decoded sections."""
    magic, version, flags, count, header_size = struct.unpack_from("<4sBBHI", frame)
    assert (magic, version, flags) == (b"CSAR", 1, 0)
    assert zlib.crc32(frame[:-4]) == struct.unpack("<I", frame[-4:])[0]
    assert frame[12:24] == bytes(12), "no codec here has a state"
    (config_size,) = struct.unpack_from("<H", frame, 56)
    assert header_size == 2 + config_size + 21 * count
    config = json.loads(frame[58 : 58 + config_size].decode())
    sections = {}
    at = 56 + header_size
    for i in range(count):
        tag, encoding, size, stored = struct.unpack_from(
            "<4sBQQ", frame, 58 + config_size + 21 * i
        )
        name = tag.rstrip(b"\0").decode("ascii")
        sections[name] = expand(encoding, size, frame[at : at + stored])
        at += stored
    assert at == len(frame) - 4
    return config, frame[40:56], sections


def expand(encoding: int, size: int, data: bytes) -> bytes:
    """Undo a section's encoding."""
    if encoding:
        assert zstandard.frame_content_size(data) == size
        data = zstandard.ZstdDecompressor().decompress(data)
    assert len(data) == size
    if encoding in SHUFFLED:
        itemsize = SHUFFLED[encoding]
        count = size // itemsize
        data = bytes(data[count * j + i] for i in range(count) for j in range(itemsize))
    return data


def read_table(data: bytes) -> Table:
    """Parse the tensor table."""
    (count,) = struct.unpack_from("<I", data)
    at = 4
    table = []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        dtype, ndim = data[at], data[at + 1]
        shape = struct.unpack_from(f"<{ndim}Q", data, at + 2)
        at += 2 + 8 * ndim
        table.append(Tensor(name, DTYPES[dtype], shape))
    assert at == len(data)
    return table


def read_exact(table: Table, sections: dict[str, bytes]) -> dict[str, bytes]:
    """Cut the sections X1 to X8 into tensors."""
    content = {}
    for itemsize in (1, 2, 4, 8):
        data = sections.get(f"X{itemsize}", b"")
        at = 0
        for tensor in table:
            if tensor.itemsize == itemsize:
                end = at + tensor.size * itemsize
                content[tensor.name] = data[at:end]
                at = end
        assert at == len(data)
    return content


def bits(data: bytes) -> Iterator[int]:
    """Yield bits, most significant first."""
    for byte in data:
        for shift in range(7, -1, -1):
            yield byte >> shift & 1


def read_positions(data: bytes, n: int) -> list[int]:
    """Decode positions in a vector of `n` elements."""
    mode, k = struct.unpack_from("<BI", data)
    b = mode & 0x3F
    split = len(data) - (b * k + 7) // 8
    body = list(bits(data[5:split]))
    if mode & 0x40:
        low = bits(data[split:])
        ones = iter(i for i, bit in enumerate(body) if bit)
        written = []
        position = last = -1
        for _ in range(k):
            one = next(ones)
            gap = (one - last - 1) << b
            for shift in range(b - 1, -1, -1):
                gap |= next(low) << shift
            position += gap + 1
            last = one
            written.append(position)
    else:
        written = [i for i, bit in enumerate(body) if bit]
    assert len(written) == k
    assert all(position < n for position in written)
    if mode & 0x80:
        absent = set(written)
        return [i for i in range(n) if i not in absent]
    return written


def read_topk(
    config: dict[str, Any], lossy: Table, sections: dict[str, bytes]
) -> dict[str, bytes]:
    """Rebuild the lossy vector and cut it into tensors."""
    n = sum(tensor.size for tensor in lossy)
    positions = read_positions(sections["POS"], n)
    form = {"float32": "f", "float16": "e"}[config["values"]]
    values = struct.unpack(f"<{len(positions)}{form}", sections["VAL"])
    vector = [0.0] * n
    for position, value in zip(positions, values, strict=True):
        vector[position] = value
    content = {}
    at = 0
    for tensor in lossy:
        part = vector[at : at + tensor.size]
        content[tensor.name] = b"".join(to_bytes(x, tensor.dtype) for x in part)
        at += tensor.size
    return content


def to_bytes(value: float, dtype: str) -> bytes:
    """Round a float32 to a dtype's little-endian bytes, ties to even."""
    if dtype != "bfloat16":
        form = {"float16": "<e", "float32": "<f", "float64": "<d"}[dtype]
        return struct.pack(form, value)
    (word,) = struct.unpack("<I", struct.pack("<f", value))
    return struct.pack("<H", (word + 0x7FFF + (word >> 16 & 1)) >> 16)
