"""A second reader of the wire format: the standard library and zstd, no numpy.

Written from docs/wire-format.md alone: frames and shared parts here, symbols in
`plain_symbols`, codecs in `plain_codecs` and `plain_error_bounded`. It checks what it
needs to decode a good frame, and shows how little a port to another language takes; it
is no example of the refusals that section 7 of that page asks for.
"""

from __future__ import annotations

import hashlib
import json
import math
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
Sections = dict[str, bytes]
Decoded = list[tuple[Tensor, bytes]]


@dataclass(frozen=True)
class Frame:
    """A frame with its sections as they were before encoding."""

    config: dict[str, Any]
    state: tuple[int, bytes]
    layout: bytes
    sections: Sections
    flags: int = 0


def read_frame(frame: bytes) -> Frame:
    """Take a frame apart."""
    magic, version, flags, count, header_size = struct.unpack_from("<4sBBHI", frame)
    assert (magic, version) == (b"CSAR", 1)
    assert flags in (0, 2, 4, 6)
    assert zlib.crc32(frame[:-4]) == struct.unpack("<I", frame[-4:])[0]
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
    state = struct.unpack_from("<I8s", frame, 12)
    return Frame(config, (state[0], state[1]), frame[40:56], sections, flags)


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


def table_bytes(table: Table) -> bytes:
    """Write a tensor table."""
    data = struct.pack("<I", len(table))
    for tensor in table:
        name = tensor.name.encode()
        data += struct.pack("<H", len(name)) + name
        data += bytes([DTYPES.index(tensor.dtype), len(tensor.shape)])
        data += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
    return data


def layout_digest(table: Table) -> bytes:
    """Return the digest of a tensor table."""
    return hashlib.sha256(table_bytes(table)).digest()[:16]


def read_as_they_are(data: bytes, table: Table) -> dict[str, bytes]:
    """Cut the section ASIS into the tensors that it names."""
    (count,) = struct.unpack_from("<I", data)
    named = [table[i] for i in struct.unpack_from(f"<{count}I", data, 4)]
    content = {}
    at = 4 + 4 * count
    for tensor in named:
        end = at + tensor.size * tensor.itemsize
        content[tensor.name] = data[at:end]
        at = end
    assert at == len(data)
    return content


def owners(lossy: Table) -> list[int]:
    """Return the number of the tensor that each element lies in."""
    return [i for i, tensor in enumerate(lossy) for _ in range(tensor.size)]


def bits(data: bytes) -> Iterator[int]:
    """Yield bits, most significant first."""
    for byte in data:
        for shift in range(7, -1, -1):
            yield byte >> shift & 1


def number(source: Iterator[int], width: int) -> int:
    """Read a number, most significant bit first."""
    value = 0
    for _ in range(width):
        value = 2 * value + next(source)
    return value


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
            gap = ((one - last - 1) << b) + number(low, b)
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


def f32(value: float) -> float:
    """Round to float32, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def floats(data: bytes) -> list[float]:
    """Read float32 numbers."""
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def to_bytes(value: float, dtype: str) -> bytes:
    """Round a float32 to a dtype's little-endian bytes, ties to even."""
    if dtype == "float16":
        try:
            return struct.pack("<e", value)
        except OverflowError:
            return struct.pack("<e", math.copysign(65504.0, value))
    if dtype != "bfloat16":
        return struct.pack({"float32": "<f", "float64": "<d"}[dtype], value)
    (word,) = struct.unpack("<I", struct.pack("<f", value))
    rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16
    if rounded & 0x7FFF == 0x7F80:
        rounded -= 1
    return struct.pack("<H", rounded)
