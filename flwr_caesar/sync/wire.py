"""Fields of what server and device say to each other, in as few bytes as they need."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable

from flwr_caesar.codec import CodecError

from .state import Version

DIGEST_BYTES = 8
_CHECK = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_F32 = struct.Struct(">f")
_MAX_VARINT_BYTES = 9


def sealed(data: bytes) -> bytes:
    """Return `data` with a checksum, which finds accidental damage."""
    return data + _CHECK.pack(zlib.crc32(data))


def opened(data: bytes) -> bytes:
    """Return what was sealed.

    Raises
    ------
    CodecError
        If it is damaged.
    """
    if not isinstance(data, bytes):
        raise CodecError("the message's header is no bytes")
    content = data[: -_CHECK.size]
    if data[-_CHECK.size :] != _CHECK.pack(zlib.crc32(content)):
        raise CodecError("header is damaged: its checksum differs")
    return content


def u64(value: int) -> bytes:
    """Return a number below ``2**64`` in eight bytes."""
    return _U64.pack(value)


def float32(value: float) -> bytes:
    """Return a positive number within float32's range in four bytes."""
    return _F32.pack(value)


def varint(value: int) -> bytes:
    """Return a number below ``2**63``, seven bits a byte, the lowest first.

    All bytes but the last have their highest bit set.
    """
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def version(value: Version) -> bytes:
    """Return the number and the digest of a model."""
    return varint(value[0]) + value[1]


def ids(values: Iterable[int]) -> bytes:
    """Return a list of at most 255 ids, after their count."""
    listed = tuple(values)
    return struct.pack(f">B{len(listed)}Q", len(listed), *listed)


class Reader:
    """Strict access to fields that somebody sent, in their order.

    Parameters
    ----------
    data : bytes
        What was sent, without its seal.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise CodecError("header is truncated")
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Return all that follows."""
        return self.take(len(self._data) - self._at)

    def u8(self) -> int:
        """Return a byte."""
        return self.take(1)[0]

    def u64(self) -> int:
        """Return a number of eight bytes."""
        value: int = _U64.unpack(self.take(_U64.size))[0]
        return value

    def float32(self) -> float:
        """Return a positive number of four bytes."""
        value: float = _F32.unpack(self.take(_F32.size))[0]
        if not 0 < value < math.inf:
            raise CodecError(f"header has the length {value}")
        return value

    def varint(self) -> int:
        """Return a number below ``2**63``, written as short as it can be."""
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if index and not byte:
                    break
                return value
        raise CodecError("header has a number that is longer than it needs")

    def version(self) -> Version:
        """Return the number and the digest of a model."""
        return self.varint(), self.take(DIGEST_BYTES)

    def ids(self, most: int) -> tuple[int, ...]:
        """Return a list of ids, of which none is zero and none occurs twice."""
        count = self.u8()
        if count > most:
            raise CodecError(f"header has {count} ids, at most {most} are expected")
        found = struct.unpack(f">{count}Q", self.take(count * _U64.size))
        if 0 in found or len(set(found)) != len(found):
            raise CodecError("header repeats an id or holds zero")
        return found

    def require_end(self) -> None:
        """Refuse bytes after the last field."""
        if self._at != len(self._data):
            raise CodecError("header has bytes after its end")
