"""What is computed and not sent: added to the next update, and kept of it again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.contract.layout import Array, Arrays, to_dtype
from flwr_caesar.codec.contract.non_finite import is_finite

from .mapped import let_go
from .short import ShortResidual


def add_residual(
    update: Arrays,
    residual: Mapping[str, Array],
    layout: Layout,
    *,
    overwrite: bool,
) -> dict[str, Array]:
    """Return an update and what is left of earlier ones, summed.

    Parameters
    ----------
    update, residual : mapping of str to ndarray
        By tensor; a tensor without a residual is taken as it is.
    layout : Layout
        Of the update.
    overwrite : bool
        Whether the sum may take the place of the update.

    Raises
    ------
    CodecError
        If a tensor has another shape in the two.
    """
    total = {}
    for spec in layout.tensors:
        array = update[spec.name]
        if spec.is_float:
            array = array.astype(to_dtype(spec.dtype), copy=False)
            out = _own(array) if overwrite else None
            added = _add_short(residual, spec.name, out)
            left = None if added else residual.get(spec.name)
            if left is not None and left.shape != array.shape:
                raise CodecError(
                    f"tensor {spec.name!r} has shape {array.shape}, what is left of "
                    f"it from earlier rounds has {left.shape}"
                )
            if left is not None:
                same = left.dtype == array.dtype
                with np.errstate(over="ignore"):
                    array = np.asarray(np.add(array, left, out=out if same else None))
            if added or left is not None:
                if not is_finite(array):  # two finite numbers beyond the range
                    limits = np.finfo(array.dtype)
                    np.clip(array, limits.min, limits.max, out=array)
                if overwrite:
                    let_go([_kept(residual, spec.name)])
        total[spec.name] = array
    return total


def left_over(
    total: Arrays, sent: Arrays, layout: Layout, *, overwrite: bool
) -> dict[str, Array]:
    """Return what was to be sent and was not, of the floating-point tensors.

    Parameters
    ----------
    total, sent : mapping of str to ndarray
        What was encoded, and what the server decodes.
    layout : Layout
        Of both.
    overwrite : bool
        Whether it may take the place of `total`.
    """
    left = {}
    for spec in layout.tensors:
        if spec.is_float:
            array = total[spec.name]
            out = _own(array) if overwrite else None
            left[spec.name] = np.asarray(np.subtract(array, sent[spec.name], out=out))
    return left


def _add_short(residual: Mapping[str, Array], name: str, array: Array | None) -> bool:
    """Add a tensor that is kept in 16 bits in place, without making it whole."""
    return (
        isinstance(residual, ShortResidual)
        and array is not None
        and array.dtype == np.float32
        and array.flags.c_contiguous
        and residual.add_to(array, name)
    )


def _kept(residual: Mapping[str, Array], name: str) -> Array:
    """Return a tensor of a residual as it is kept, which may be in fewer bits."""
    if isinstance(residual, ShortResidual):
        return residual.stored(name)
    return residual[name]


def _own(array: Array) -> Array | None:
    """Return an array to write to, `None` if that is not possible."""
    return array if array.flags.writeable and array.ndim else None
