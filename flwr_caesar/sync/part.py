"""Models of which only some tensors travel, as the other side holds the rest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.contract.layout import Array, Arrays

_LEAST_GAIN = 4
"""How many times the table of a part its absent tensors have, to be left out."""


def same_tensor(left: Array, right: Array) -> bool:
    """Whether two tensors are equal to the bit: NaN and the sign of zero, too.

    Most that are not differ at their beginning, so that is looked at first.
    """
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    bits = np.dtype(f"u{left.dtype.itemsize}")
    own, other = (
        np.ascontiguousarray(array).reshape(-1).view(bits) for array in (left, right)
    )
    return np.array_equal(own[:64], other[:64]) and np.array_equal(own, other)


def changed_part(model: Arrays, base: Arrays) -> dict[str, Array] | None:
    """Return the tensors of a model that differ from those of another.

    Returns
    -------
    dict of str to ndarray or None
        `None` where what they have in common is not worth a frame of its own, which
        says what tensors it has.
    """
    changed = {
        name: array
        for name, array in model.items()
        if not same_tensor(array, base[name])
    }
    left_out = sum(a.nbytes for n, a in model.items() if n not in changed)
    if left_out <= _LEAST_GAIN * len(Layout.of(changed).to_bytes()):
        return None
    return changed


def completed(part: Mapping[str, Array], base: Arrays) -> dict[str, Array]:
    """Return a model of the tensors of a part, and the others of another model.

    Raises
    ------
    CodecError
        If the part has a tensor that the other model has not.
    """
    for name, array in part.items():
        held = base.get(name)
        if held is None or (held.dtype, held.shape) != (array.dtype, array.shape):
            raise CodecError(f"a tensor {name!r} came that is not of the model")
    return {name: part.get(name, array) for name, array in base.items()}
