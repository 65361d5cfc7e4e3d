"""Where the kept elements of a vector are: bitmap or Golomb-Rice gaps."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.frame import FrameReader
from ..contract.layout import Array
from .blocks import blocks

Positions = np.ndarray[Any, np.dtype[np.int64]]
Unsigned = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]

_HEAD = struct.Struct("<BI")
_COMPLEMENT, _RICE, _B_MASK = 0x80, 0x40, 0x3F
POSITIONS_OVERHEAD = _HEAD.size + 2  # header, and two runs filled up to whole bytes


def encode_positions(positions: Positions, n: int) -> bytes:
    """Encode strictly increasing positions in ``[0, n)``.

    The gaps ``g_i = p_i - p_(i-1) - 1`` are written as a Golomb-Rice code of the best
    power of two ``2^b``: the quotients ``g >> b`` in unary (that many zeros, then a
    one), the `b` low bits apart. Where more than half of the positions are present,
    the absent ones are written. Of this and a bitmap of `n` bits, the shorter.

    Parameters
    ----------
    positions : ndarray of int64, shape (k,)
        Increasing, without repeats.
    n : int
        Length of the vector, below ``2^32``.

    Returns
    -------
    bytes
        Within 3 % of ``n * H2(k / n)`` bits for densities up to 0.2.

    Raises
    ------
    CodecError
        If the vector is longer.

    References
    ----------
    Golomb (1966), "Run-length encodings"; Rice and Plaunt (1971).
    """
    if n >> 32:
        raise CodecError(f"positions in {n} elements; at most 2^32 - 1 fit a frame")
    flags = 0
    if n < 1 << 31:
        positions = positions.astype(np.int32)  # half the memory of what follows
    if 2 * len(positions) > n:
        present = np.zeros(n, bool)
        present[positions] = True
        positions = np.flatnonzero(~present)
        flags = _COMPLEMENT
    k = len(positions)
    gaps = np.diff(positions, prepend=positions.dtype.type(-1)) - 1
    b, rice_bits = best_rice(gaps)
    if rice_bits >= n:
        bitmap = np.zeros(n, np.uint8)
        bitmap[positions] = 1
        body = np.packbits(bitmap).tobytes()
        return _HEAD.pack(flags, k) + body
    ends = np.cumsum((gaps >> b) + 1, dtype=gaps.dtype)
    ends -= 1
    unary = np.zeros(int(ends[-1]) + 1 if k else 0, np.uint8)
    unary[ends] = 1
    body = np.packbits(unary).tobytes()
    low = pack_bits(gaps & ((1 << b) - 1), b)
    return _HEAD.pack(flags | _RICE | b, k) + body + low


def best_rice(gaps: Positions) -> tuple[int, int]:
    """Return the best `b` and its bits, which are convex in `b`: walk downhill."""
    if len(gaps) == 0:
        return 0, 0

    def cost(b: int) -> int:
        return len(gaps) * (b + 1) + int(np.add.reduce(gaps >> b))

    b = max(int(np.add.reduce(gaps)) // len(gaps), 1).bit_length() - 1
    bits = cost(b)
    while b > 0 and (lower := cost(b - 1)) <= bits:
        b, bits = b - 1, lower
    while (lower := cost(b + 1)) < bits:
        b, bits = b + 1, lower
    return b, bits


def position_cost(k: int, n: int) -> tuple[int, float]:
    """Bound what `encode_positions` takes for `k` of `n` positions, wherever they are.

    Returns
    -------
    tuple of int and float
        Most bits, beside `POSITIONS_OVERHEAD` bytes; and by how many bits that falls,
        at least, for each position that is left out: ``k (b + 1) + (n - k) / 2^b``
        with one `b`, or those of a bitmap, which do not fall.
    """
    if k == 0:
        return 0, 0.0
    costs = [(k * (b + 1) - ((k - n) >> b), b) for b in range(n.bit_length())]
    bits, b = min(costs)
    if bits >= n:
        return n, 0.0
    return bits, b + 1 - 2.0**-b


def max_positions_bytes(n: int) -> int:
    """Return the most bytes that `encode_positions` writes for `n` elements."""
    return POSITIONS_OVERHEAD + (n + 7) // 8


def decode_positions(data: bytes, n: int) -> Positions:
    """Decode what `encode_positions` wrote for a vector of length `n`.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding.
    """
    if len(data) < _HEAD.size or len(data) > max_positions_bytes(n):
        raise CodecError("positions are truncated or too long")
    mode, k = _HEAD.unpack_from(data)
    b = mode & _B_MASK
    size = len(data) - _HEAD.size - (b * k + 7) // 8
    if k > n or size < 0 or (b and not mode & _RICE):
        raise CodecError("positions have a malformed header")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, size, _HEAD.size))
    marks = np.count_nonzero(bits)
    if marks != k:
        raise CodecError(f"positions hold {marks} marks, header says {k}")
    ones = np.flatnonzero(bits)
    if not mode & _RICE:
        if size != (n + 7) // 8:
            raise CodecError("position bitmap has the wrong length")
        positions = ones
    else:
        length = int(ones[-1]) + 1 if k else 0
        # All quotients together fit into n, so nothing below can overflow.
        if size != (length + 7) // 8 or (length - k) << b > n or (k and 1 << b > n):
            raise CodecError("position gaps exceed the vector")
        if n < 1 << 30:
            ones = ones.astype(np.int32)
        gaps = np.diff(ones, prepend=ones.dtype.type(-1)) - 1
        low = unpack_bits(data[_HEAD.size + size :], b, k)
        if b:
            gaps <<= b
            gaps |= low.astype(gaps.dtype)
        gaps += 1
        positions = np.cumsum(gaps, dtype=np.int64)
        positions -= 1
    if k and int(positions[-1]) >= n:
        raise CodecError("positions lie outside the vector")
    if mode & _COMPLEMENT:
        absent = np.zeros(n, bool)
        absent[positions] = True
        positions = np.flatnonzero(~absent)
    return positions.astype(np.int64, copy=False)


def read_positions(reader: FrameReader, tag: str, n: int) -> Positions:
    """Decode a frame's section of positions in a vector of length `n`.

    Raises
    ------
    CodecError
        If it is missing, or not exactly what `encode_positions` writes.
    """
    return decode_positions(reader.section(tag, max_size=max_positions_bytes(n)), n)


def pack_bits(values: Array, b: int) -> bytes:
    """Pack the `b` low bits of each value, most significant first, without gaps."""
    if b == 0:
        return b""
    packed = []
    for part in blocks(len(values)):  # of whole bytes
        packed.append(np.packbits(to_bits(values[part], b)).tobytes())
    return b"".join(packed)


def to_bits(values: Array, b: int) -> Array:
    """Return the `b` low bits of each value, most significant first, as uint8."""
    bits = np.empty((len(values), b), np.uint8)
    for i in range(b):
        bits[:, i] = (values >> (b - 1 - i)) & 1
    return bits


def unpack_bits(data: bytes, b: int, count: int) -> Unsigned:
    """Undo `pack_bits`.

    Returns
    -------
    ndarray of uint32 or, for ``b > 32``, uint64, shape (count,)
        The values.

    Raises
    ------
    CodecError
        If `data` is not exactly ``ceil(b * count / 8)`` bytes long.
    """
    if len(data) != (b * count + 7) // 8:
        raise CodecError("packed bits have the wrong length")
    kind = np.uint32 if b <= 32 else np.uint64
    if b == 0:
        return np.broadcast_to(kind(0), count)
    values: Unsigned = np.zeros(count, kind)
    packed = np.frombuffer(data, np.uint8)
    for part in blocks(count):  # of whole bytes
        block = values[part]
        start, stop = part.start * b // 8, (part.stop * b + 7) // 8
        bits = np.unpackbits(packed[start:stop], count=b * len(block))
        for column in bits.reshape(-1, b).T:
            block <<= kind(1)
            block |= column
    return values
