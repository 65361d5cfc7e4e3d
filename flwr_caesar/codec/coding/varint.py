"""Small numbers in few bytes, as the notes of messages have them."""

from __future__ import annotations

from ..contract.errors import CodecError

_MOST_BYTES = 9


def write_varint(value: int) -> bytes:
    """Return a number below 2^63 in seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(0x80 | value & 0x7F)
        value >>= 7
    found.append(value)
    return bytes(found)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return the number at an offset, and the offset behind it.

    Raises
    ------
    CodecError
        If it is truncated, too long, or has more bytes than it needs.
    """
    value = 0
    for i, byte in enumerate(data[offset : offset + _MOST_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if i and not byte:
                raise CodecError("a number has more bytes than it needs")
            return value, offset + i + 1
    raise CodecError("a number is truncated or too long")
