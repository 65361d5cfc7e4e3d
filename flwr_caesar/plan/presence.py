"""Devices that leave and come back, for simulations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flwr_caesar.frozen import frozen

from .columns import Mask, slot_numbers
from .draws import uniforms
from .errors import PlanError

_OFFSET, _AWAY = 16, 17


@frozen
class Presence:
    """Which devices can be reached in a round.

    A device's rounds are cut into stretches of equal length, which begin at a round of
    its own; in each stretch it is away with the same chance, whatever happened before.

    Parameters
    ----------
    absent : float
        Chance of being away, 0 to below 1: on average this part of the devices is.
    rounds : int
        Length of a stretch.
    seed : int
        0 to 2^63 - 1; the same seed gives the same absences.

    Raises
    ------
    PlanError
        If a value is out of range.
    """

    absent: float
    rounds: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.absent < 1:
            raise PlanError(f"absent is {self.absent}; give a fraction below 1")
        if self.rounds < 1:
            raise PlanError(f"rounds is {self.rounds}; give 1 or more")

    def present(self, server_round: int, devices: ArrayLike) -> Mask:
        """Return which devices are there, shape (n,).

        Parameters
        ----------
        server_round : int
            Counted from 1.
        devices : array of int, shape (n,)
            Device numbers, from 0.
        """
        numbers = slot_numbers(devices)
        begins = uniforms(self.seed, _OFFSET, numbers) * self.rounds
        stretch = (server_round + begins.astype(np.int64)) // self.rounds
        draw = uniforms(self.seed, _AWAY, numbers, stretch)
        return np.asarray(draw >= self.absent, np.bool_)
