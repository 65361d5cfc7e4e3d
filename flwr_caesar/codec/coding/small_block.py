"""Integers of several tensors without tables: for blocks too short to pay for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array, TensorSpec
from ..contract.vector import slices
from .integers import Integers
from .lattice_block import encode_block
from .positions import best_rice, pack_bits, unpack_bits

WORTH_LEAVING_OUT = 1024
"""Zeros from which on naming the tensors that hold nothing else costs less."""

FEW = 1 << 15
"""Integers from which on a block with tables is shorter."""

_ABSENT = 0xFF
_MAX_BITS = 31
_WORTH_TABLES = 256

_Wide = np.ndarray[Any, np.dtype[np.int64]]


def encode_shorter(
    indices: Integers, specs: Sequence[TensorSpec]
) -> tuple[bool, bytes]:
    """Return the shorter of `encode_small_block` and `lattice_block.encode_block`.

    Returns
    -------
    tuple of bool and bytes
        Whether it is the small one, and the block.
    """
    if len(indices) >= FEW:
        return False, encode_block(indices, specs)
    small = encode_small_block(indices, specs)
    if len(small) <= _WORTH_TABLES:
        return True, small
    block = encode_block(indices, specs)
    return (True, small) if len(small) <= len(block) else (False, block)


def encode_small_block(indices: Integers, specs: Sequence[TensorSpec]) -> bytes:
    """Write each integer in a Golomb-Rice code of its tensor.

    A byte for each tensor, `b`, or 255 where all of its integers are 0 and none of them
    is written. Then, of all the others in order, the quotients of the zigzag
    ``u >> b`` in unary (that many zeros and a one), and, apart from these, the low `b`
    bits. That is within some tenths of a bit of the entropy an integer, and has no
    table: up to some thousand integers it is shorter than `lattice_block`.

    Parameters
    ----------
    indices : ndarray of int32, shape (n,)
        Integers; `n` is the sizes' sum.
    specs : sequence of TensorSpec
        Tensors, in order.

    References
    ----------
    Golomb (1966), "Run-length encodings"; Rice and Plaunt (1971).
    """
    widths = bytearray()
    quotients: list[Array] = []
    low: list[Array] = []
    for part in slices(specs):
        u = _zigzag(indices[part])
        if not u.any():
            widths.append(_ABSENT)
            continue
        b = min(best_rice(u)[0], _MAX_BITS)
        widths.append(b)
        quotients.append(u >> b)
        low.append(_bits(u, b))
    counts = np.concatenate([np.empty(0, np.int64), *quotients])
    ends = np.cumsum(counts + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    tail = np.packbits(np.concatenate([np.empty(0, np.uint8), *low]))
    return bytes(widths) + np.packbits(unary).tobytes() + tail.tobytes()


def max_small_block_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the most bytes that `encode_small_block` may write."""
    return len(specs) + (34 * sum(spec.size for spec in specs) + 7) // 8 + 2


def decode_small_block(data: bytes, specs: Sequence[TensorSpec]) -> Integers:
    """Decode what `encode_small_block` wrote for the same tensors.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding.
    """
    widths = data[: len(specs)]
    if len(widths) != len(specs):
        raise CodecError("block is truncated")
    present = [
        (part, b)
        for part, b in zip(slices(specs), widths, strict=True)
        if b != _ABSENT and part.stop > part.start
    ]
    if any(b > _MAX_BITS for _, b in present):
        raise CodecError("block has a malformed width")
    count = sum(part.stop - part.start for part, _ in present)
    low_bits = sum(b * (part.stop - part.start) for part, b in present)
    size = len(data) - len(specs) - (low_bits + 7) // 8
    if size < 0:
        raise CodecError("block is truncated")
    marks = np.frombuffer(data, np.uint8, size, len(specs))
    ones = np.flatnonzero(np.unpackbits(marks))
    length = int(ones[-1]) + 1 if len(ones) else 0
    if len(ones) != count or size != (length + 7) // 8:
        raise CodecError("block has the wrong number of integers")
    quotients = np.diff(ones, prepend=-1) - 1
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=len(specs) + size))
    indices = np.zeros(sum(spec.size for spec in specs), np.int32)
    start = at = 0
    for part, b in present:
        n = part.stop - part.start
        u = quotients[start : start + n]
        if int(u.max()) >> (32 - b):
            raise CodecError("block has an integer beyond 32 bits")
        u = (u << b) | _number(bits[at : at + b * n], b, n)
        indices[part] = (u >> 1) ^ -(u & 1)
        start += n
        at += b * n
    return indices


def _zigzag(values: Integers) -> _Wide:
    wide = values.astype(np.int64)
    return (wide << 1) ^ (wide >> 63)


def _bits(u: _Wide, b: int) -> Array:
    packed = np.frombuffer(pack_bits(u & ((1 << b) - 1), b), np.uint8)
    return np.unpackbits(packed, count=b * len(u))


def _number(bits: Array, b: int, n: int) -> _Wide:
    return unpack_bits(np.packbits(bits).tobytes(), b, n).astype(np.int64)
