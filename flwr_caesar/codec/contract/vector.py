"""Tensors open to loss, as one float32 vector, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import CodecError
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype

Vector = np.ndarray[Any, np.dtype[np.float32]]

LARGEST_16_BIT = {"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127}

MOST_ELEMENTS = (1 << 31) - 1
"""Most elements open to loss in a frame: lengths of integers are written in 32 bits."""


def require_elements(n: int) -> None:
    """Refuse more elements than a frame can hold lossily.

    Raises
    ------
    CodecError
        If there are more than `MOST_ELEMENTS`.
    """
    if n > MOST_ELEMENTS:
        raise CodecError(
            f"{n:,} elements are open to loss, and a frame holds at most "
            f"{MOST_ELEMENTS:,} of them; send the model as it is ('dense'), or train "
            "fewer of its tensors, such as adapters"
        )


def gather(arrays: Arrays, specs: Sequence[TensorSpec]) -> Vector:
    """Concatenate tensors, flattened in C order, into a new float32 vector.

    Raises
    ------
    CodecError
        If a float64 element exceeds the range of float32, or there are too many.
    """
    n = sum(s.size for s in specs)
    require_elements(n)
    vector = np.empty(n, np.float32)
    offset = 0
    with np.errstate(over="ignore"):
        for spec in specs:
            part = vector[offset : offset + spec.size]
            part[...] = arrays[spec.name].reshape(-1)
            if spec.dtype == "float64" and not np.isfinite(part).all():
                raise CodecError(f"tensor {spec.name!r} exceeds the range of float32")
            offset += spec.size
    return vector


def scatter(vector: Vector, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Cut a vector made by `gather` back into tensors of their own dtypes.

    Finite values beyond the range of a 16-bit dtype become its largest.
    """
    arrays = {}
    offset = 0
    for spec in specs:
        part = vector[offset : offset + spec.size].reshape(spec.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses these
            arrays[spec.name] = _narrow(part, to_dtype(spec.dtype))
        offset += spec.size
    return arrays


def _narrow(part: Vector, dtype: np.dtype[Any]) -> Array:
    if dtype.itemsize == 2:
        limit = np.float32(LARGEST_16_BIT[dtype.name])
        part = np.where(np.isfinite(part), np.clip(part, -limit, limit), part)
    return part.astype(dtype, copy=False)


def slices(specs: Sequence[TensorSpec]) -> list[slice]:
    """Return where each tensor lies in the vector that `gather` makes."""
    parts = []
    offset = 0
    for spec in specs:
        parts.append(slice(offset, offset + spec.size))
        offset += spec.size
    return parts


def in_layout_order(layout: Layout, arrays: Arrays) -> dict[str, Array]:
    """Return `arrays` in the order of the layout."""
    return {spec.name: arrays[spec.name] for spec in layout.tensors}
