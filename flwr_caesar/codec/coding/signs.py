"""Which of a tensor's integers change their sign, so that most of them are positive.

The inputs of a layer behind a ReLU are never negative, so that its gradients mostly
have one sign for each output; and an update often goes where the one before it went.
"""

from __future__ import annotations

import math
from dataclasses import field
from enum import IntEnum
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.layout import Array
from ..contract.vector import Vector
from .blocks import Index3, Shape3
from .integers import Integers

_CHANCE = 8.0  # bits that signs of no relation may seem to save

Negative = np.ndarray[Any, np.dtype[np.bool_]]


class SignMode(IntEnum):
    """Where a tensor's integers have their signs from."""

    OWN = 0
    OUTPUTS = 1
    INPUTS = 2
    HISTORY = 3


@frozen
class Signs:
    """What a tensor's integers are multiplied by: -1 or 1 for each slice or element.

    Parameters
    ----------
    mode : SignMode
        What has a sign: no integer, each output or input channel, or each element, that
        of its value in the last round.
    negative : ndarray of bool, shape (channels,)
        Which channels are negative; empty without such.
    """

    mode: SignMode = SignMode.OWN
    negative: Negative = field(default_factory=lambda: np.empty(0, np.bool_))

    def flip(self, values: Integers, at: Index3, previous: Vector | None) -> Integers:
        """Return a piece of the integers with their signs changed, or as it is.

        Parameters
        ----------
        values : ndarray of int32, shape (outputs, inputs, positions)
            The piece.
        at : tuple of slice
            Where in the tensor it is.
        previous : ndarray of float32, same shape as the tensor, optional
            The last round.
        """
        if self.mode is SignMode.OWN or not values.size:
            return values
        if self.mode is SignMode.HISTORY:
            assert previous is not None
            return np.multiply(values, _signs_of(previous[at] < 0), dtype=values.dtype)
        axis = self.mode - 1
        shape = [-1 if i == axis else 1 for i in range(3)]
        negative = self.negative[at[axis]].reshape(shape)
        if not negative.any():
            return values
        return np.multiply(values, _signs_of(negative), dtype=values.dtype)


def _signs_of(negative: Negative) -> Array:
    """Return -1 where negative, 1 elsewhere, as int8."""
    return np.int8(1) - 2 * negative.view(np.int8)


def count_channels(mode: SignMode, shape: Shape3) -> int:
    """Return how many signs a mode sends of a tensor."""
    return shape[mode - 1] if mode in (SignMode.OUTPUTS, SignMode.INPUTS) else 0


class SignSums:
    """Signs of a tensor's integers, summed over its channels piece by piece.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, positions) of the tensor.
    """

    def __init__(self, shape: Shape3) -> None:
        self._outputs = np.zeros(shape[0], np.int64)
        self._inputs = np.zeros(shape[1], np.int64)
        self._agreeing = 0
        self.active = 0

    def set(self, sums: Array, active: int) -> None:
        """Take the sums of both axes, and how many integers are not 0."""
        self._outputs, self._inputs = np.split(sums, [len(self._outputs)])
        self.active = active

    def add_history(self, at: Index3, values: Integers, previous: Vector) -> None:
        """Compare the integers that stand at an index with the last round's."""
        was = previous[at]
        signs = np.subtract((was > 0).view(np.int8), (was < 0).view(np.int8))
        self._agreeing += int((np.sign(values) * signs).sum(dtype=np.int64))

    def add(self, at: Index3, values: Integers) -> None:
        """Add the integers that stand at an index."""
        positive, negative = values > 0, values < 0
        self.active += int(np.count_nonzero(values))
        signs = np.subtract(positive.view(np.int8), negative.view(np.int8))
        self._outputs[at[0]] += signs.sum(axis=(1, 2), dtype=np.int32)
        self._inputs[at[1]] += signs.sum(axis=0, dtype=np.int32).sum(axis=1)

    def best(self, *, with_history: bool) -> Signs:
        """Return the signs with which those of the integers take the fewest bits.

        They take ``H(p)`` bits for each integer that is not 0, with the share `p` of
        positive ones, and a sign of a channel takes one.
        """
        tried = [
            (self._bits(abs(int(self._outputs.sum()))), Signs()),
            *(
                (
                    self._bits(int(np.abs(sums).sum())) + len(sums),
                    Signs(mode, sums < 0),
                )
                for mode, sums in (
                    (SignMode.OUTPUTS, self._outputs),
                    (SignMode.INPUTS, self._inputs),
                )
            ),
        ]
        if with_history:
            bits = self._bits(self._agreeing) + _CHANCE
            tried.append((bits, Signs(SignMode.HISTORY)))
        return min(tried, key=lambda own: own[0])[1]

    def _bits(self, majority: int) -> float:
        """Return the bits of signs of which so many more are of one kind."""
        if not self.active:
            return 0.0
        shares = [(self.active + m) / (2 * self.active) for m in (majority, -majority)]
        return -self.active * sum(p * math.log2(p) for p in shares if p > 0)
