"""What a policy has to know of a device, read from its sensors and its link."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from .board import entries, read_number, read_text
from .link_meter import LinkError, default_interface, load_used, read_counter
from .node_file import NodeFile
from .policy import Readings
from .telemetry.sysfs import read_temperatures

_CHARGED = ("Charging", "Full", "Not charging")


def read_readings(node: NodeFile, now: datetime, root: Path = Path("/")) -> Readings:
    """Return what a device knows of itself; what cannot be read is left out.

    Parameters
    ----------
    node : NodeFile
        The device's.
    now : datetime
        By the clock on the wall.
    root : Path
        Where the machine's file system begins.
    """
    percent, on_mains = read_battery(root)
    today, this_month = _used(node, now, root)
    return Readings(
        temperature=max(read_temperatures(root).values(), default=None),
        battery=percent,
        on_mains=on_mains,
        bytes_today=today,
        bytes_this_month=this_month,
    )


def read_battery(root: Path) -> tuple[float | None, bool]:
    """Return the percent of a device's battery, and whether it is on mains.

    Of several batteries the emptiest counts. A device without one is on mains.
    """
    percents, on_mains = [], True
    for supply in entries(root / "sys/class/power_supply"):
        # A mouse has a battery too, and says that it is not the system's.
        if read_text(supply / "type") != "Battery":
            continue
        if read_text(supply / "scope") == "Device":
            continue
        percent = read_number(supply / "capacity")
        if percent is not None:
            percents.append(min(max(percent, 0.0), 100.0))
            on_mains = on_mains and read_text(supply / "status") in _CHARGED
    return min(percents, default=None), on_mains


def _used(node: NodeFile, now: datetime, root: Path) -> tuple[int, int]:
    if node.metered is None:
        return 0, 0
    try:
        interface = node.metered.interface or default_interface(root)
        used = load_used(node.state_dir, read_counter(interface, root), now)
    except LinkError:
        return 0, 0
    return used.today, used.this_month
