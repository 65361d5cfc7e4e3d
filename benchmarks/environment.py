"""What a table must name: machine, versions, command, date."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version


def describe(command: str, packages: tuple[str, ...] = ("flwr", "numpy")) -> str:
    """Return the closing lines of a benchmark table.

    Parameters
    ----------
    command : str
        What was run.
    packages : tuple of str
        Packages whose versions matter.
    """
    versions = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} not installed")
    return (
        f"`{command}`, {datetime.date.today()}, {_cpu()}, {os.cpu_count()} cores, "
        f"{', '.join(versions)}."
    )


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
