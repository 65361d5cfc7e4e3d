"""Integers of several tensors, coded in contexts of separable scales, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array, TensorSpec
from .blocks import blocks, tensor_blocks
from .class_counts import choose_contexts
from .contexts import (
    ContextMap,
    Scales,
    SliceSums,
    as_channels,
    check_scales,
    count_scales,
    scale_classes,
    scale_kinds,
)
from .integers import Integers, decode_integers, encode_integers, to_symbols

_HEAD = struct.Struct("<I")
_KINDS = 4


def max_block_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the most bytes that `encode_block` may write."""
    return 16 * sum(spec.size for spec in specs) + (1 << 20)


def encode_block(indices: Integers, specs: Sequence[TensorSpec]) -> bytes:
    """Entropy-code the integers of tensors, concatenated in order.

    The bytes are those of the scales with their length before (uint32), the context
    map, and the integers (`contexts`, `integers`).

    Parameters
    ----------
    indices : ndarray of int32, shape (n,)
        Integers; `n` is the sizes' sum.
    specs : sequence of TensorSpec
        Tensors, in order.
    """
    if not len(indices):
        return b""
    classes = np.empty(len(indices), np.uint8)
    scales, kinds = [], []
    start = 0
    for spec in specs:
        shape = as_channels(spec.shape)
        part = indices[start : start + spec.size].reshape(shape)
        own = _fit_scales(part)
        classes[start : start + spec.size] = scale_classes(own, shape).reshape(-1)
        scales.append(own)
        kinds.append(scale_kinds(shape))
        start += spec.size
    packed = encode_integers(
        np.concatenate(scales).astype(np.int32), np.concatenate(kinds), _KINDS
    )
    symbols = to_symbols(indices)
    contexts, counts = choose_contexts(symbols, classes, None)
    for at in blocks(len(classes)):  # in its place, as it is long
        classes[at] = contexts.contexts(classes[at], None)
    return b"".join(
        [
            _HEAD.pack(len(packed)),
            packed,
            contexts.to_bytes(),
            encode_integers(
                indices, classes, contexts.size, symbols=symbols, counts=counts
            ),
        ]
    )


def _fit_scales(indices: Integers) -> Scales:
    """Return the scales of a tensor's integers."""
    shape = indices.shape[0], indices.shape[1], indices.shape[2]
    sums = SliceSums(shape)
    for at, _ in tensor_blocks(shape):
        sums.add(at, indices[at])
    return sums.coarse_scales(int(np.count_nonzero(indices)))[0]


def decode_block(data: bytes, specs: Sequence[TensorSpec]) -> Integers:
    """Decode what `encode_block` wrote for the same tensors.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding.
    """
    total = sum(spec.size for spec in specs)
    if not total:
        if data:
            raise CodecError("a block without elements has bytes")
        return np.empty(0, np.int32)
    if len(data) < _HEAD.size:
        raise CodecError("block is truncated")
    end = _HEAD.size + int(_HEAD.unpack_from(data)[0])
    kinds = np.concatenate([scale_kinds(as_channels(s.shape)) for s in specs])
    scales = check_scales(decode_integers(data[_HEAD.size : end], kinds, _KINDS))
    contexts, packed = ContextMap.from_bytes(data[end:])
    if contexts.use_history:
        raise CodecError("block uses a history that it does not have")
    index: Array = np.empty(total, np.uint8)
    start = first = 0
    for spec in specs:
        shape = as_channels(spec.shape)
        count = count_scales(shape)
        classes = scale_classes(scales[first : first + count], shape)
        index[start : start + spec.size] = contexts.contexts(classes, None).reshape(-1)
        start += spec.size
        first += count
    return decode_integers(packed, index, contexts.size)
