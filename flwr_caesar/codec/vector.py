"""Tensors open to loss, as one float32 vector, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import CodecError
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype

Vector = np.ndarray[Any, np.dtype[np.float32]]


def gather(arrays: Arrays, specs: Sequence[TensorSpec]) -> Vector:
    """Concatenate tensors, flattened in C order, into a new float32 vector.

    Raises
    ------
    CodecError
        If a float64 element exceeds the range of float32.
    """
    vector = np.empty(sum(s.size for s in specs), np.float32)
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
    """Cut a vector made by `gather` back into tensors of their own dtypes."""
    arrays = {}
    offset = 0
    for spec in specs:
        part = vector[offset : offset + spec.size].reshape(spec.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses these
            arrays[spec.name] = part.astype(to_dtype(spec.dtype), copy=False)
        offset += spec.size
    return arrays


def in_layout_order(layout: Layout, arrays: Arrays) -> dict[str, Array]:
    """Return `arrays` in the order of the layout."""
    return {spec.name: arrays[spec.name] for spec in layout.tensors}
