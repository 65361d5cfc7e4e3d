"""Changes of 16-bit floating-point tensors, exactly, as small integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array, Arrays, TensorSpec, to_dtype
from ..contract.vector import slices
from .integers import Integers
from .lattice_block import decode_block, max_block_bytes
from .small_block import decode_small_block, encode_shorter

_Ordinals = np.ndarray[Any, np.dtype[np.int32]]


def is_half(spec: TensorSpec) -> bool:
    """Whether the elements are 16-bit floating-point numbers."""
    return spec.dtype in ("float16", "bfloat16")


def encode_halves(new: Arrays, old: Arrays, specs: Sequence[TensorSpec]) -> bytes:
    """Encode the change between tensors of 16-bit floats.

    Numbers of a type in their order have successive ordinals, so that a change by less
    than the precision of the type is 0 or 1, whatever the magnitude. A bit for each
    tensor says whether it changed, a byte whether the block is a small one, and then
    comes the block of the differences.

    Parameters
    ----------
    new, old : mapping of str to ndarray
        The tensors, of equal dtypes and shapes.
    specs : sequence of TensorSpec
        Which ones, in order.
    """
    changes = [_ordinals(new[s.name]) - _ordinals(old[s.name]) for s in specs]
    changed = [bool(change.any()) for change in changes]
    kept = [spec for spec, is_new in zip(specs, changed, strict=True) if is_new]
    pieces = [change for change, is_new in zip(changes, changed, strict=True) if is_new]
    is_small, block = encode_shorter(
        np.concatenate([np.empty(0, np.int32), *pieces]), kept
    )
    return np.packbits(changed).tobytes() + bytes([is_small]) + block


def max_halves_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the most bytes that `encode_halves` may write."""
    return (len(specs) + 7) // 8 + 1 + max_block_bytes(specs)


def decode_halves(
    data: bytes, old: Arrays, specs: Sequence[TensorSpec], *, undo: bool = False
) -> Mapping[str, Array]:
    """Decode what `encode_halves` wrote, as new arrays.

    Parameters
    ----------
    data : bytes
        What it wrote.
    old : mapping of str to ndarray
        The tensors that changed.
    specs : sequence of TensorSpec
        Which ones, in order.
    undo : bool
        Whether `old` is what they changed into, and what they were is wanted.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding, or a change leaves the numbers.
    """
    size = (len(specs) + 7) // 8
    if len(data) <= size or data[size] > 1:
        raise CodecError("changes of 16-bit tensors are malformed")
    flags = np.unpackbits(np.frombuffer(data, np.uint8, size), count=len(specs))
    kept = [spec for spec, flag in zip(specs, flags, strict=True) if flag]
    decode = decode_small_block if data[size] else decode_block
    indices = decode(data[size + 1 :], kept)
    arrays = {
        spec.name: np.array(old[spec.name], to_dtype(spec.dtype)) for spec in specs
    }
    for spec, part in zip(kept, slices(kept), strict=True):
        change = indices[part].astype(np.int64)
        total = _ordinals(old[spec.name]) + (-change if undo else change)
        arrays[spec.name] = _from_ordinals(total, spec)
    return arrays


def _ordinals(array: Array) -> Integers:
    little = np.ascontiguousarray(array, to_dtype(array.dtype.name)).reshape(-1)
    word = little.view("<u2").astype(np.int32)
    return np.where(word < 0x8000, word, 0x7FFF - word).astype(np.int32)


def _from_ordinals(ordinals: Array, spec: TensorSpec) -> Array:
    if (ordinals > 0x7FFF).any() or (ordinals < -0x8000).any():
        raise CodecError(f"tensor {spec.name!r} changes beyond its type")
    word = np.where(ordinals >= 0, ordinals, 0x7FFF - ordinals).astype("<u2")
    return word.view(to_dtype(spec.dtype)).reshape(spec.shape)
