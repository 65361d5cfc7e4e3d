"""The weighted mean of updates, one at a time, in memory of one model."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Strategy,
)

from flwr_caesar.codec.layout import FLOAT_DTYPES, Array, Arrays

_MEAN_AGGREGATES = frozenset(
    cls.aggregate_train for cls in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
)


def aggregates_a_mean(strategy: Strategy) -> bool:
    """Whether a strategy's result depends on the weighted mean of replies only.

    True for FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi and subclasses that
    leave `aggregate_train` alone; any other strategy is given every update.
    """
    return type(strategy).aggregate_train in _MEAN_AGGREGATES


class RunningMean:
    """Weighted mean of ``base + update`` over replies, without keeping them.

    ``sum_i w_i (base_i + u_i) / sum_i w_i``, accumulated in float32 (float64 for
    float64 tensors). Tensors that are not floating point in the base are averaged in
    float64 and become float64, as in FedAvg.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._sums: dict[str, Array] = {}
        self._bases: dict[int, tuple[Arrays, float]] = {}

    def add(self, update: Arrays, base: Arrays, weight: float) -> None:
        """Add one reply.

        Parameters
        ----------
        update : mapping of str to ndarray
            As `flwr_caesar.codec.difference` makes it; may be overwritten.
        base : mapping of str to ndarray
            The model the update refers to; kept by reference.
        weight : float
            Weight of the reply, positive.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the mean
            for name, delta in update.items():
                term = np.asarray(_term(delta, base[name]))
                np.multiply(term, term.dtype.type(weight), out=term)
                if name in self._sums:
                    self._sums[name] += term
                else:
                    self._sums[name] = term
        self._weight += weight
        _, so_far = self._bases.get(id(base), (base, 0.0))
        self._bases[id(base)] = (base, so_far + weight)

    @property
    def weight(self) -> float:
        """Sum of the weights added."""
        return self._weight

    def result(self) -> dict[str, Array]:
        """Return the mean model, in the dtypes of the base; at least one was added.

        Finite updates may still have a mean that overflows.
        """
        mean: dict[str, Array] = {}
        for name, total in self._sums.items():
            value = np.asarray(total / total.dtype.type(self._weight))
            for base, weight in self._bases.values():
                if _is_float(base[name]):
                    share = value.dtype.type(weight / self._weight)
                    value += base[name].astype(value.dtype) * share
                    mean[name] = value.astype(base[name].dtype, copy=False)
                else:
                    mean[name] = value
        return mean


def _is_float(array: Array) -> bool:
    return array.dtype.name in FLOAT_DTYPES


def _term(delta: Array, base: Array) -> Array:
    """Return what one reply adds: relative to a floating-point base, else a value."""
    wide = np.float64 if base.dtype.name == "float64" else np.float32
    if _is_float(base):
        relative = delta if _is_float(delta) else delta - base.astype(np.float64)
        return relative.astype(wide, copy=False)
    value = base + delta if _is_float(delta) else delta
    return value.astype(np.float64)
