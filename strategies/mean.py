"""The weighted mean of updates, one at a time, in memory of one model."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Array, Arrays, dtype_name
from flwr_caesar.frozen import frozen
from flwr_caesar.transport import widened_in_place

_PIECE = 1 << 15


class RunningMean:
    """Weighted mean of ``base + update`` over replies, without keeping them.

    ``sum_i w_i (base_i + u_i) / sum_i w_i``, in float32 (float64 for float64 tensors).
    What is held is the mean so far, not a sum, so that finite updates have a finite
    mean whatever their size and weights. Tensors that are not floating point in the
    base are added up in float64 and become float64, as in FedAvg.

    Attributes
    ----------
    count : int
        Replies added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._weight = 0.0
        self._mean: dict[str, Array] = {}
        self._bases: dict[int, tuple[Arrays, float]] = {}

    def add(self, update: Arrays, base: Arrays, weight: float) -> None:
        """Add one reply.

        Parameters
        ----------
        update : mapping of str to ndarray
            As `flwr_caesar.codec.difference` makes it; becomes the mean if it can be
            written to.
        base : mapping of str to ndarray
            The model the update refers to; kept by reference.
        weight : float
            Weight of the reply, at least 0; one of weight 0 changes nothing.
        """
        self.count += 1
        if weight == 0:
            return
        self._weight += weight
        share = weight / self._weight
        with np.errstate(under="ignore"):
            for name, delta in update.items():
                term = np.asarray(_term(delta, base[name]))
                kind = term.dtype.type
                if not _is_float(base[name]):
                    term *= weight
                    self._mean[name] = self._mean.get(name, 0.0) + term
                elif name in self._mean:
                    mean = self._mean[name]
                    if _equal(mean, term):  # a frozen tensor stays as it is, exactly
                        continue
                    _move(mean, term, kind(1 - share), kind(share))
                else:
                    self._mean[name] = term if term.flags.writeable else term.copy()
        _, so_far = self._bases.get(id(base), (base, 0.0))
        self._bases[id(base)] = (base, so_far + weight)

    @property
    def weight(self) -> float:
        """Sum of the weights added."""
        return self._weight

    def result(self) -> dict[str, Array]:
        """Return the mean model, in the dtypes of the base; empty if it has no weight.

        Its memory is that of what was added, so it can be had once. The mean of finite
        updates is finite, but the model they lead to may overflow.
        """
        model: dict[str, Array] = {}
        while self._mean:
            name = next(iter(self._mean))
            value = mean = self._mean.pop(name)
            bases = [base[name] for base, _ in self._bases.values()]
            if not all(map(_is_float, bases)):
                value = np.asarray(mean / self._weight)
            elif not all(bool(np.isfinite(each).all()) for each in bases):
                value = mean.copy()
            for base, weight in self._bases.values():
                if _is_float(base[name]):
                    share = value.dtype.type(weight / self._weight)
                    with np.errstate(over="ignore", invalid="ignore"):
                        value += base[name].astype(value.dtype, copy=False) * share
                        odd = ~np.isfinite(base[name])
                        if odd.any():  # a mask stays, unless a device set a number
                            set_now = odd & (mean != 0)
                            value[set_now] = mean[set_now]
                        model[name] = value.astype(base[name].dtype, copy=False)
                else:
                    model[name] = value
        return model


@frozen
class Combined:
    """The mean of replies, as of one reply: its model and its weight."""

    record: ArrayRecord
    weight: float

    @classmethod
    def of(cls, mean: RunningMean) -> Combined:
        """Return the result of a mean."""
        return cls(widened_in_place(mean.result()), mean.weight)


def _move(mean: Array, term: Array, kept: Any, share: Any) -> None:
    """Make ``kept mean + share term`` of a mean, in place."""
    if not mean.flags.c_contiguous or not term.flags.c_contiguous:
        mean *= kept
        mean += term * share
        return
    left, right = mean.reshape(-1), term.reshape(-1)
    part = np.empty(min(left.size, _PIECE), left.dtype)
    for at in range(0, left.size, _PIECE):  # what is in the cache is read once
        own, new = left[at : at + _PIECE], right[at : at + _PIECE]
        own *= kept
        own += np.multiply(new, share, out=part[: new.size])


def _is_float(array: Array) -> bool:
    return dtype_name(array.dtype) in FLOAT_DTYPES


def _equal(left: Array, right: Array) -> bool:
    """Whether two arrays are equal; most that are not differ at their beginning."""
    if not np.array_equal(left.reshape(-1)[:64], right.reshape(-1)[:64]):
        return False
    return np.array_equal(left, right)


def _term(delta: Array, base: Array) -> Array:
    """Return what one reply adds: relative to a floating-point base, else a value."""
    wide = np.float64 if dtype_name(base.dtype) == "float64" else np.float32
    if _is_float(base):
        relative = delta if _is_float(delta) else delta - base.astype(np.float64)
        return relative.astype(wide, copy=False)
    value = base + delta if _is_float(delta) else delta
    return value.astype(np.float64)
