"""A clock that charges simulated devices for what a round would take real ones."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, Ints, floats, slot_numbers
from .draws import normals, uniforms
from .errors import PlanError
from .profiles import Assignment, Profile, assign
from .times import RoundTimes

_SPREAD, _DRIFT, _MODE = range(3)
_FORGOTTEN = 1e-4


class VirtualClock:
    """The paper's time model over a fleet of pretended devices.

    A device is charged ``bytes_down / B_d + samples * mu + bytes_up / B_u`` seconds:
    `samples` are those it trained on, ``tau * b``, and `mu` is operations per sample
    over the effective speed of its power mode. Everything random is a function of the
    seed, the device and the round: the same seed gives the same times, whatever was
    asked before and in which order.

    Parameters
    ----------
    profile : Profile
        The fleet.
    devices : int
        How many devices there are; they are numbered from 0.
    seed : int
        0 to 2^63 - 1.
    flops_per_sample : float, optional
        Operations of training on one sample once. Needed if the profile has none;
        not used if it has.

    Raises
    ------
    PlanError
        If a value is out of range, or neither side gives the operations per sample.

    References
    ----------
    Caesar, arXiv 2412.19989: the time of a round. Drift and power modes are ours.
    """

    def __init__(
        self,
        profile: Profile,
        devices: int,
        *,
        seed: int,
        flops_per_sample: float | None = None,
    ) -> None:
        flops = profile.flops_per_sample or flops_per_sample
        if flops is None or not 0 < flops < math.inf:
            raise PlanError(f"flops_per_sample is {flops}; give a number above 0")
        if not 0 <= seed < 1 << 63:
            raise PlanError(f"seed is {seed}; give 0 to 2^63 - 1")
        self._profile = profile
        self._devices = devices
        self._seed = seed
        self._assignment = assign(profile, devices, seed=seed)
        modes = max(len(device.modes) for device in profile.devices)
        self._seconds = np.full((len(profile.devices), modes), np.inf)
        self._chances = np.ones((len(profile.devices), modes))
        for row, device in enumerate(profile.devices):
            speeds = [device.utilisation * mode.peak_flops for mode in device.modes]
            shares = np.array([mode.share for mode in device.modes])
            self._seconds[row, : len(speeds)] = flops / np.array(speeds)
            self._chances[row, : len(shares) - 1] = (
                np.cumsum(shares)[:-1] / shares.sum()
            )

    @property
    def assignment(self) -> Assignment:
        """Class and link of each device."""
        return self._assignment

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return self._devices

    def device_class(self, device: int) -> str:
        """Return the name of a device's class.

        Raises
        ------
        PlanError
            If there is no such device.
        """
        (number,) = self._assignment.classes[self._numbers(1, [device])]
        return self._profile.devices[int(number)].name

    def modes(self, server_round: int, devices: ArrayLike) -> Ints:
        """Return the power mode of devices in a round, by position in their class.

        Parameters
        ----------
        server_round : int
            Counted from 1.
        devices : array of int, shape (n,)
            Device numbers.

        Raises
        ------
        PlanError
            If the round is below 1 or there is no such device.
        """
        numbers = self._numbers(server_round, devices)
        period = (server_round - 1) // self._profile.mode_rounds
        draw = uniforms(self._seed, _MODE, numbers, period)
        chances = self._chances[self._assignment.classes[numbers]]
        return np.asarray((draw[:, None] >= chances).sum(axis=1), np.int64)

    def seconds_per_sample(self, server_round: int, devices: ArrayLike) -> Floats:
        """Return seconds to train on one sample once, shape (n,).

        Parameters and errors are those of `modes`.
        """
        numbers = self._numbers(server_round, devices)
        classes = self._assignment.classes[numbers]
        return np.asarray(
            self._seconds[classes, self.modes(server_round, numbers)], np.float64
        )

    def bandwidth(self, server_round: int, devices: ArrayLike) -> tuple[Floats, Floats]:
        """Return **bytes** per second down and up, each of shape (n,).

        Parameters and errors are those of `modes`.
        """
        numbers = self._numbers(server_round, devices)
        links = self._assignment.links[numbers]
        down = np.empty(len(numbers))
        up = np.empty(len(numbers))
        for position, link in enumerate(self._profile.links):
            mine = links == position
            factor = np.exp(
                link.spread * normals(self._seed, _SPREAD, numbers[mine])
                + link.drift
                * self._drift(server_round, numbers[mine], link.persistence)
            )
            down[mine] = link.down_bps / 8 * factor
            up[mine] = link.up_bps / 8 * factor
        return down, up

    def times(
        self,
        server_round: int,
        devices: ArrayLike,
        *,
        bytes_down: ArrayLike,
        bytes_up: ArrayLike,
        samples: ArrayLike,
        deadline: float | None = None,
    ) -> RoundTimes:
        """Charge the devices of a round.

        Parameters
        ----------
        server_round : int
            Counted from 1.
        devices : array of int, shape (n,)
            Device numbers.
        bytes_down, bytes_up : array of float, shape (n,), or scalar
            Real bytes sent.
        samples : array of float, shape (n,), or scalar
            Samples each trained on, each as often as it was: steps times batch size.
        deadline : float, optional
            Seconds at which the round closes.

        Raises
        ------
        PlanError
            If the round is below 1, there is no such device, or a value is negative.
        """
        down, up = self.bandwidth(server_round, devices)
        work = floats("samples", samples)
        return RoundTimes.of(
            download=floats("bytes_down", bytes_down) / down,
            train=work * self.seconds_per_sample(server_round, devices),
            upload=floats("bytes_up", bytes_up) / up,
            deadline=deadline,
        )

    def _drift(self, server_round: int, numbers: Ints, persistence: float) -> Floats:
        # x_t = a x_(t-1) + sqrt(1 - a^2) e_t, unrolled to where a^k no longer counts;
        # the oldest term has weight a^k, which keeps the variance at 1.
        if persistence == 0:
            return normals(self._seed, _DRIFT, numbers, server_round)
        depth = math.ceil(math.log(_FORGOTTEN) / math.log(persistence))
        ages = np.arange(min(depth, server_round - 1) + 1)
        weights = persistence**ages
        weights[:-1] *= math.sqrt(1 - persistence**2)
        shocks = normals(self._seed, _DRIFT, numbers[:, None], server_round - ages)
        return np.asarray((shocks * weights).sum(axis=1), np.float64)

    def _numbers(self, server_round: int, devices: ArrayLike) -> Ints:
        if server_round < 1:
            raise PlanError(f"round {server_round}: rounds are counted from 1")
        numbers = slot_numbers(devices)
        if numbers.size and numbers.max() >= self._devices:
            raise PlanError(
                f"device {numbers.max()}: there are {self._devices}, counted from 0"
            )
        return numbers
