"""Fleets of devices that a simulation pretends to have: classes, links and shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from .columns import Ints
from .errors import PlanError


@frozen
class PowerMode:
    """One setting of a device's clocks.

    Parameters
    ----------
    name : str
        Its name.
    peak_flops : float
        Peak floating-point operations a second, from the maker's figures.
    share : float
        Weight of this mode among the class's: how often devices are in it.
    """

    name: str
    peak_flops: float
    share: float = 1.0


@frozen
class DeviceClass:
    """Devices of one make.

    Parameters
    ----------
    name : str
        Its name.
    share : float
        Weight of this class in the fleet.
    utilisation : float
        Part of the peak that training reaches, above 0 to 1.
    modes : sequence of PowerMode
        At least one.
    links : mapping of str to float
        Weight of each link class among these devices.
    """

    name: str
    share: float
    utilisation: float
    modes: Sequence[PowerMode]
    links: Mapping[str, float]


@frozen
class LinkClass:
    """Links of one kind.

    The bandwidth of a device in a round is the median times ``exp(spread * z + drift *
    x)``: `z` is normal and the device's own, `x` a normal AR(1) process over rounds.
    Both directions share them.

    Parameters
    ----------
    name : str
        Its name.
    down_bps, up_bps : float
        Median bandwidths, **bits** per second.
    spread : float
        Standard deviation, between devices, of the natural logarithm of the bandwidth.
    drift : float
        The same over rounds, for one device.
    persistence : float
        Correlation of `x` from one round to the next, 0 to below 1.
    """

    name: str
    down_bps: float
    up_bps: float
    spread: float = 0.0
    drift: float = 0.0
    persistence: float = 0.0


@frozen
class Profile:
    """A fleet.

    Parameters
    ----------
    name : str
        Its name.
    devices : sequence of DeviceClass
        At least one.
    links : sequence of LinkClass
        At least one.
    mode_rounds : int
        Rounds after which every device draws its power mode anew.
    flops_per_sample : float, optional
        Operations of training on one sample once, forward and backward, to charge
        devices for; `None`: those of the model that is trained.
    """

    name: str
    devices: Sequence[DeviceClass]
    links: Sequence[LinkClass]
    mode_rounds: int = 20
    flops_per_sample: float | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> Profile | None:
        """Read a profile from its configuration, a file of ``conf/profile/``.

        Parameters
        ----------
        config : mapping, optional
            As loaded from YAML, interpolations resolved.

        Returns
        -------
        Profile or None
            `None`, no virtual clock, if there is no configuration or its ``devices``
            are null.

        Raises
        ------
        PlanError
            If a key is missing, unknown or out of range; the message names it.
        """
        if config is None or config.get("devices") is None:
            return None
        table = _Table("profile", config)
        links = [_link(name, entry) for name, entry in table.entries("links")]
        known = {link.name for link in links}
        devices = [
            _device(name, entry, known) for name, entry in table.entries("devices")
        ]
        if not any(device.share > 0 for device in devices):
            raise PlanError("profile.devices: no class has a share above 0")
        rounds = table.number("mode_rounds", 20, low=1)
        if rounds != int(rounds):
            raise PlanError(f"profile.mode_rounds is {rounds}; give a whole number")
        flops = table.number("flops_per_sample", None, above=0)
        profile = cls(
            name=table.text("name"),
            devices=tuple(devices),
            links=tuple(links),
            mode_rounds=int(rounds),
            flops_per_sample=flops,
        )
        table.finish()
        return profile


@frozen
class Assignment:
    """Which device is what.

    Parameters
    ----------
    classes, links : ndarray of int64, shape (n,)
        Positions in the profile's `devices` and `links`, for devices 0 to ``n - 1``.
    """

    classes: Ints
    links: Ints


def assign(profile: Profile, count: int, *, seed: int) -> Assignment:
    """Give each of `count` devices a class and a link.

    Shares are met as exactly as whole devices can (largest remainders), by classes and
    by links within each class; who gets what is drawn at random.

    Parameters
    ----------
    profile : Profile
        The fleet.
    count : int
        Devices, 1 or more.
    seed : int
        0 or more; the same seed gives the same assignment.

    Raises
    ------
    PlanError
        If `count` is below 1.
    """
    if count < 1:
        raise PlanError(f"{count} devices; give 1 or more")
    numbers = {link.name: number for number, link in enumerate(profile.links)}
    classes = np.empty(count, np.int64)
    links = np.empty(count, np.int64)
    order = np.random.default_rng(seed).permutation(count)
    sizes = apportion([device.share for device in profile.devices], count)
    start = 0
    for number, (device, size) in enumerate(zip(profile.devices, sizes, strict=True)):
        members = order[start : start + size]
        classes[members] = number
        portions = apportion(list(device.links.values()), size)
        links[members] = np.repeat([numbers[name] for name in device.links], portions)
        start += size
    return Assignment(classes, links)


def apportion(shares: Sequence[float], count: int) -> list[int]:
    """Divide `count` by shares into whole numbers, by the largest remainders.

    Ties go to the earlier share.
    """
    exact = np.asarray(shares, np.float64) * (count / math.fsum(shares))
    whole = np.floor(exact).astype(np.int64)
    for position in np.argsort(whole - exact, kind="stable")[: count - whole.sum()]:
        whole[position] += 1
    return [int(size) for size in whole]


class _Table:
    """A mapping read key by key; errors name the key."""

    def __init__(self, path: str, config: Any) -> None:
        if not isinstance(config, Mapping):
            raise PlanError(f"{path} is {config!r}; give a mapping")
        self._path = path
        self._left = dict(config)

    def number(
        self,
        key: str,
        *default: float | None,
        low: float | None = None,
        above: float | None = None,
        high: float = math.inf,
    ) -> Any:
        value = self._pop(key, *default)
        if value is None and default:
            return None
        right = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (low is None or value >= low)
            and (above is None or value > above)
            and value <= high
        )
        if not right:
            least = f"{low:g} or more" if low is not None else f"above {above:g}"
            most = f", at most {high:g}" if high < math.inf else ""
            raise PlanError(
                f"{self._path}.{key} is {value!r}; give a number {least}{most}"
            )
        return float(value)

    def text(self, key: str) -> str:
        value = self._pop(key)
        if not isinstance(value, str) or not value:
            raise PlanError(f"{self._path}.{key} is {value!r}; give a name")
        return value

    def entries(self, key: str) -> list[tuple[str, _Table]]:
        value = self._pop(key)
        if not isinstance(value, Mapping) or not value:
            raise PlanError(f"{self._path}.{key} is {value!r}; give one entry or more")
        path = f"{self._path}.{key}"
        return [(str(n), _Table(f"{path}.{n}", entry)) for n, entry in value.items()]

    def weights(self, key: str, known: set[str]) -> dict[str, float]:
        value = self._pop(key)
        table = _Table(f"{self._path}.{key}", value)
        weights = {str(name): table.number(name, low=0) for name in value}
        for name in weights.keys() - known:
            raise PlanError(f"{self._path}.{key}: no link class {name!r}")
        if not sum(weights.values()) > 0:
            raise PlanError(f"{self._path}.{key}: no link has a share above 0")
        return weights

    def finish(self) -> None:
        for key in self._left:
            raise PlanError(f"{self._path}.{key}: no such key")

    def _pop(self, key: str, *default: Any) -> Any:
        if key not in self._left and not default:
            raise PlanError(f"{self._path}.{key} is missing")
        return self._left.pop(key, *default)


def _link(name: str, table: _Table) -> LinkClass:
    link = LinkClass(
        name=name,
        down_bps=table.number("down_bps", above=0),
        up_bps=table.number("up_bps", above=0),
        spread=table.number("spread", 0.0, low=0),
        drift=table.number("drift", 0.0, low=0),
        persistence=table.number("persistence", 0.0, low=0, high=0.99),
    )
    table.finish()
    return link


def _device(name: str, table: _Table, links: set[str]) -> DeviceClass:
    modes = []
    for mode, entry in table.entries("modes"):
        modes.append(
            PowerMode(
                name=mode,
                peak_flops=entry.number("peak_flops", above=0),
                share=entry.number("share", 1.0, low=0),
            )
        )
        entry.finish()
    if not any(mode.share > 0 for mode in modes):
        raise PlanError(f"profile.devices.{name}.modes: no mode has a share above 0")
    device = DeviceClass(
        name=name,
        share=table.number("share", low=0),
        utilisation=table.number("utilisation", above=0, high=1),
        modes=tuple(modes),
        links=table.weights("links", links),
    )
    table.finish()
    return device
