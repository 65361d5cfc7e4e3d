"""The update between two models of the same tensors, and its application."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache

import numpy as np

from .energy import energy
from .errors import CodecError
from .layout import (
    FLOAT_DTYPES,
    Array,
    Arrays,
    Layout,
    TensorSpec,
    dtype_name,
    to_dtype,
)
from .non_finite import is_finite, require_none_new

_BLOCK = 1 << 16
_FEW = 64
_LEAST_ENERGY = 1e-250


@lru_cache(maxsize=16)
def update_layout(layout: Layout) -> Layout:
    """Return the layout of an update of models with `layout`.

    Floating-point tensors become float32 (float64 stays), all others keep their
    dtype.
    """
    return Layout(
        tuple(
            TensorSpec(s.name, _update_dtype(s.dtype), s.shape) for s in layout.tensors
        )
    )


def difference(new: Arrays, old: Arrays) -> dict[str, Array]:
    """Return ``new - old`` for floating-point tensors of `new`, else `new` itself.

    The update is finite. It is 0 where an element of both is the same NaN or infinity,
    and the new element itself, 0 replaced by the smallest normal number, where only the
    old one is not finite. A difference beyond the range becomes the largest number.

    Raises
    ------
    CodecError
        If the tensors differ in name or shape, or `new` has a NaN or infinity that
        `old` has not.
    """
    _require_same_tensors(new, old)
    update = {}
    for name, array in new.items():
        dtype = dtype_name(array.dtype)
        if dtype in FLOAT_DTYPES:
            wide = to_dtype(_update_dtype(dtype))
            with np.errstate(over="ignore", invalid="ignore"):
                a = array.astype(wide, copy=False)
                b = old[name].astype(wide, copy=False)
                delta = np.asarray(a - b)
            update[name] = delta if is_finite(delta) else _finite(name, a, b)
        else:
            update[name] = array
    return update


def apply(old: Arrays, update: Arrays) -> dict[str, Array]:
    """Return the model that `difference` was taken of, to float32 rounding.

    A tensor has the dtype of `old` if both it and the update are floating point,
    else the dtype of the update. An element of `old` that is not finite stays where the
    update is 0, and becomes the update elsewhere.

    Raises
    ------
    CodecError
        If the tensors differ in name or shape.
    """
    _require_same_tensors(update, old)
    model = {}
    for name, delta in update.items():
        if dtype_name(delta.dtype) in FLOAT_DTYPES:
            base = old[name]
            with np.errstate(over="ignore", invalid="ignore"):
                start = base.astype(delta.dtype)
                total = np.asarray(start + delta)
            if not is_finite(total):
                odd = ~np.isfinite(start)
                total[odd] = np.where(delta == 0, start, delta)[odd]
            keep = dtype_name(base.dtype) in FLOAT_DTYPES
            model[name] = total.astype(base.dtype, copy=False) if keep else total
        else:
            model[name] = delta
    return model


def nonnegative(model: Arrays) -> frozenset[str]:
    """Return the names of floating-point tensors without negative elements.

    Such as variances; a tensor without elements and one with NaN are not among them.
    """
    return frozenset(
        name
        for name, array in model.items()
        if dtype_name(array.dtype) in FLOAT_DTYPES
        and array.size
        and bool((array.flat[:_FEW] >= 0).all())  # settles it for most tensors
        and bool((array >= 0).all())
    )


def length(update: Arrays) -> float:
    """Return the Euclidean norm of an update's floating-point tensors, never NaN.

    Finite elements have a finite norm however large they are, up to the range of
    float64; beyond, it is infinite.
    """
    parts = [
        a for a in update.values() if dtype_name(a.dtype) in FLOAT_DTYPES and a.size
    ]
    total = sum(map(_energy, parts))
    if _LEAST_ENERGY < total < math.inf:
        return math.sqrt(total)
    # All is 0, or squares leave the range of float64, or there is no number.
    largest = max((float(np.abs(array).max()) for array in parts), default=0.0)
    if not largest or not math.isfinite(largest):
        return math.inf if largest else 0.0
    return largest * math.sqrt(sum(_energy(array, largest) for array in parts))


def _energy(array: Array, unit: float = 1.0) -> float:
    """Return the sum of squares in float64, in squares of a unit."""
    flat, total = array.reshape(-1), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            if unit != 1 or block.dtype.itemsize < 4:
                block = block.astype(np.float64) / unit
            total += energy(block)
    return total


def change_of_others(new: Arrays, old: Arrays) -> float:
    """Return the Euclidean norm by which all but floating-point tensors changed.

    Parameters
    ----------
    new, old : mapping of str to ndarray
        Of equal shapes; what a tensor is, `new` says.
    """
    changes = {
        name: array.astype(np.float64) - old[name].astype(np.float64)
        for name, array in new.items()
        if dtype_name(array.dtype) not in FLOAT_DTYPES
    }
    return length(changes)


def keep_sign(model: Arrays, names: Collection[str]) -> dict[str, Array]:
    """Return a model in which the tensors of these names have no negative elements.

    What is negative there becomes 0: it is the rounding of a mean or of a codec, or a
    server optimiser's momentum, where every model that went into it had none.

    Parameters
    ----------
    model : mapping of str to ndarray
        Not changed.
    names : collection of str
        `nonnegative` of all models that were averaged.
    """
    return {
        name: np.maximum(array, array.dtype.type(0))
        if name in names and bool((array < 0).any())
        else array
        for name, array in model.items()
    }


def _finite(name: str, new: Array, old: Array) -> Array:
    """Return a difference that is finite; see `difference`."""
    require_none_new({name: new}, {name: old})
    limits = np.finfo(new.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        delta = np.clip(new - old, limits.min, limits.max)
    value = np.where(new == 0, limits.tiny, new)
    delta = np.where(np.isfinite(old), delta, np.where(np.isfinite(new), value, 0))
    return delta.astype(new.dtype, copy=False)


def _update_dtype(dtype: str) -> str:
    if dtype not in FLOAT_DTYPES:
        return dtype
    return "float64" if dtype == "float64" else "float32"


def _require_same_tensors(a: Arrays, b: Arrays) -> None:
    for name in {**a, **b}:
        if name not in a or name not in b:
            raise CodecError(f"tensor {name!r} is in one of the two models only")
        if a[name].shape != b[name].shape:
            raise CodecError(
                f"tensor {name!r} has shape {a[name].shape} and {b[name].shape}"
            )
