"""Integers of several tensors without tables: for blocks too short to pay for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.frame import stored_size
from ..contract.layout import Array, TensorSpec
from ..contract.vector import slices
from ..kernel import compiled, contiguous
from ..kernel.interface import Kernel
from .integers import Integers
from .lattice_block import encode_block
from .positions import best_rice, to_bits, unpack_bits

WORTH_LEAVING_OUT = 1024
"""Zeros from which on naming the tensors that hold nothing else costs less."""

FEW = 1 << 15
"""Integers from which on a block with tables is shorter."""

_ABSENT = 0xFF
_MAX_BITS = 31
_WORTH_TABLES = 256
_MOST_UNARY_BYTES = 8  # an integer; the best width leaves half of it

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
    is_small = len(small) <= len(block) or stored_size(small) <= len(block)
    return (True, small) if is_small else (False, block)


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
    return encode_groups([indices[part] for part in slices(specs)])


def encode_groups(groups: Sequence[Array]) -> bytes:
    """Write groups of integers as `encode_small_block` writes those of tensors."""
    if (native := compiled()) is not None and len(groups):
        return _written(native, groups)
    widths = bytearray()
    quotients: list[Array] = []
    low: list[Array] = []
    for group in groups:
        u = _zigzag(group)
        if not u.any():
            widths.append(_ABSENT)
            continue
        b = min(best_rice(u)[0], _MAX_BITS)
        widths.append(b)
        quotients.append(u >> b)
        low.append(to_bits(u, b).reshape(-1))
    counts = np.concatenate([np.empty(0, np.int64), *quotients])
    ends = np.cumsum(counts + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    tail = np.packbits(np.concatenate([np.empty(0, np.uint8), *low]))
    return bytes(widths) + np.packbits(unary).tobytes() + tail.tobytes()


def _written(native: Kernel, groups: Sequence[Array]) -> bytes:
    values = contiguous(np.concatenate(groups), np.int32)
    sizes = np.array([len(group) for group in groups], np.int64)
    room = np.empty(_most_bytes(len(groups), len(values)), np.uint8)
    return room[: native.write_groups(values, sizes, room)].tobytes()


def max_small_block_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the most bytes that `encode_small_block` may write."""
    return _most_bytes(len(specs), sum(spec.size for spec in specs))


def _most_bytes(groups: int, n: int) -> int:
    return groups + (34 * n + 7) // 8 + 2


def decode_small_block(data: bytes, specs: Sequence[TensorSpec]) -> Integers:
    """Decode what `encode_small_block` wrote for the same tensors.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding.
    """
    found, end = decode_groups(data, 0, [spec.size for spec in specs])
    if end != len(data):
        raise CodecError("block has the wrong number of integers")
    return found


def decode_groups(
    data: bytes, offset: int, sizes: Sequence[int]
) -> tuple[Integers, int]:
    """Read what `encode_groups` wrote of groups of so many integers.

    Returns
    -------
    tuple of ndarray of int32 and int
        The integers, one group after another, and the offset behind them.

    Raises
    ------
    CodecError
        If the bytes at the offset do not begin with such groups.
    """
    if (native := compiled()) is not None:
        read = np.empty(sum(sizes), np.int32)
        end = native.read_groups(data, offset, np.array(sizes, np.int64), read)
        if end >= 0:
            return read, end
        # What is malformed is read again, for the words of the error.
    start = offset + len(sizes)
    if start > len(data):
        raise CodecError("block is truncated")
    widths = data[offset:start]
    bounds = [0, *accumulate(sizes)]
    present = [
        (slice(*own), b)
        for own, b in zip(pairwise(bounds), widths, strict=True)
        if b != _ABSENT and own[0] < own[1]
    ]
    if any(b > _MAX_BITS for _, b in present):
        raise CodecError("block has a malformed width")
    count = sum(part.stop - part.start for part, _ in present)
    low_bits = sum(b * (part.stop - part.start) for part, b in present)
    room = min(len(data) - start, _MOST_UNARY_BYTES * count)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, room, start)))
    if len(ones) < count:
        raise CodecError("block is truncated")
    middle = start + (int(ones[count - 1]) // 8 + 1 if count else 0)
    if len(ones) > count and ones[count] < 8 * (middle - start):
        raise CodecError("block has the wrong number of integers")
    end = middle + (low_bits + 7) // 8
    if end > len(data):
        raise CodecError("block is truncated")
    quotients = np.diff(ones[:count], prepend=-1) - 1
    bits = np.unpackbits(np.frombuffer(data, np.uint8, end - middle, middle))
    indices = np.zeros(bounds[-1], np.int32)
    first = at = 0
    for part, b in present:
        n = part.stop - part.start
        u = quotients[first : first + n]
        if int(u.max()) >> (32 - b):
            raise CodecError("block has an integer beyond 32 bits")
        u = (u << b) | _number(bits[at : at + b * n], b, n)
        indices[part] = (u >> 1) ^ -(u & 1)
        first += n
        at += b * n
    return indices, end


def _zigzag(values: Integers) -> _Wide:
    wide = values.astype(np.int64)
    return (wide << 1) ^ (wide >> 63)


def _number(bits: Array, b: int, n: int) -> _Wide:
    return unpack_bits(np.packbits(bits).tobytes(), b, n).astype(np.int64)
