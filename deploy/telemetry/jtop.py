"""Reading a board's sensors from jetson-stats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr_caesar.deploy.board import power_mode

from .sample import Sample
from .sysfs import read_sysfs

SOCKET = "run/jtop.sock"
_OFFLINE = -256


def parse_stats(stats: Mapping[str, Any]) -> Sample:
    """Return what ``jtop.stats`` says; what it lacks is left out.

    ``Power TOT`` is in milliwatts, ``Temp <zone>`` in degrees, ``GPU`` in percent.
    """
    degrees = [
        value
        for key in stats
        if key.startswith("Temp ")
        and (value := _number(stats, key)) is not None
        and value > _OFFLINE
    ]
    power = _number(stats, "Power TOT")
    return Sample(
        watts=None if power is None else power / 1000,
        celsius=max(degrees, default=None),
        gpu_load=_number(stats, "GPU"),
        power_mode=str(stats.get("nvp model", ""))[:32],
    )


class Jtop:
    """A connection to the service of jetson-stats.

    Parameters
    ----------
    root : Path
        Where the file system begins.

    Raises
    ------
    Exception
        Whatever jetson-stats raises where it is missing, of another version than the
        service, or may not be reached.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        from jtop import jtop

        self._root = root
        self._client = jtop()
        self._client.start()

    def read(self) -> Sample:
        """Return what the service said last, and the counters that it does not have."""
        if not self._client.ok(spin=True):
            return Sample()
        told = parse_stats(self._client.stats)
        counted = read_sysfs(self._root)
        return Sample(
            watts=told.watts,
            celsius=told.celsius,
            gpu_load=told.gpu_load,
            over_current=counted.over_current,
            power_mode=told.power_mode or power_mode(self._root),
        )

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def _number(stats: Mapping[str, Any], key: str) -> float | None:
    value = stats.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
