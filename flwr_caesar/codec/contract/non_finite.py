"""Elements that are no numbers: those of a model are kept, new ones are refused."""

from __future__ import annotations

import numpy as np

from .errors import CodecError
from .layout import FLOAT_DTYPES, Array, Arrays


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite; True for what is not floating point."""
    kind = array.dtype.kind
    if kind in "biu" or (kind != "f" and array.dtype.name not in FLOAT_DTYPES):
        return True
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return bool(np.isfinite(array).all())


def require_finite(arrays: Arrays) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    CodecError
        With the name of the tensor that holds one.
    """
    for name, array in arrays.items():
        if not is_finite(array):
            raise CodecError(f"tensor {name!r} holds NaN or infinity")


def require_none_new(model: Arrays, before: Arrays) -> None:
    """Refuse NaN and infinity where the model before had another element.

    Parameters
    ----------
    model, before : mapping of str to ndarray
        Of the same tensors; a tensor that `before` lacks had none.

    Raises
    ------
    CodecError
        With the name of the tensor that holds one.
    """
    for name, array in model.items():
        if not is_finite(array) and (
            name not in before or (_odd(array) & ~_same(array, before[name])).any()
        ):
            raise CodecError(
                f"tensor {name!r} holds NaN or infinity that the model before has not"
            )


def without_non_finite(model: Arrays, before: Arrays) -> dict[str, Array]:
    """Return a model with 0 for the elements that are not finite, in `before` neither.

    What is averaged and sent of a model then is finite, and `with_non_finite` of the
    same `before` brings them back.

    Raises
    ------
    CodecError
        As `require_none_new` does.
    """
    require_none_new(model, before)
    return {
        name: array
        if is_finite(array)
        else np.where(_odd(array), array.dtype.type(0), array)
        for name, array in model.items()
    }


def with_non_finite(model: Arrays, before: Arrays) -> dict[str, Array]:
    """Return a model with the elements of `before` that are not finite, where it has 0.

    So an element of `before` that became a number is one from now on.
    """
    found = {}
    for name, array in model.items():
        old = before.get(name)
        if old is not None and not is_finite(old):
            array = np.where(_odd(old) & (array == 0), old, array)
            array = array.astype(model[name].dtype, copy=False)
        found[name] = array
    return found


def _odd(array: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(~np.isfinite(array))


def _same(a: Array, b: Array) -> Array:
    """Whether elements are equal; NaN equals NaN, whatever its payload."""
    with np.errstate(invalid="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    same: Array = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    return same
