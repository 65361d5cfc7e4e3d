"""The update between two models of the same tensors, and its application."""

from __future__ import annotations

from .errors import CodecError
from .layout import FLOAT_DTYPES, Array, Arrays, Layout, TensorSpec, to_dtype


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

    Raises
    ------
    CodecError
        If the tensors differ in name or shape.
    """
    _require_same_tensors(new, old)
    update = {}
    for name, array in new.items():
        dtype = array.dtype.name
        if dtype in FLOAT_DTYPES:
            wide = to_dtype(_update_dtype(dtype))
            update[name] = array.astype(wide) - old[name].astype(wide)
        else:
            update[name] = array
    return update


def apply(old: Arrays, update: Arrays) -> dict[str, Array]:
    """Return the model that `difference` was taken of, to float32 rounding.

    A tensor has the dtype of `old` if both it and the update are floating point,
    else the dtype of the update.

    Raises
    ------
    CodecError
        If the tensors differ in name or shape.
    """
    _require_same_tensors(update, old)
    model = {}
    for name, delta in update.items():
        if delta.dtype.name in FLOAT_DTYPES:
            base = old[name]
            total = base.astype(delta.dtype) + delta
            keep = base.dtype.name in FLOAT_DTYPES
            model[name] = total.astype(base.dtype, copy=False) if keep else total
        else:
            model[name] = delta
    return model


def _update_dtype(dtype: str) -> str:
    if dtype not in FLOAT_DTYPES:
        return dtype
    return "float64" if dtype == "float64" else "float32"


def _require_same_tensors(a: Arrays, b: Arrays) -> None:
    for name in a.keys() | b.keys():
        if name not in a or name not in b:
            raise CodecError(f"tensor {name!r} is in one of the two models only")
        if a[name].shape != b[name].shape:
            raise CodecError(
                f"tensor {name!r} has shape {a[name].shape} and {b[name].shape}"
            )
