"""What machine this is: a Jetson of which kind and software, or another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# By the first word of the chip's name; from jetson-stats 7.2.2, jetson_variables.py.
_CAPABILITIES = {
    "tegra264": "sm_110",  # Thor
    "tegra234": "sm_87",  # Orin
    "tegra194": "sm_72",  # Xavier
    "tegra186": "sm_62",  # TX2
    "tegra210": "sm_53",  # Nano, TX1
}
_JETPACKS = {
    "39.2.2": "7.2.2",
    "39.2.1": "7.2.1",
    "39.2.0": "7.2",
    "39.0.0": "7.2 early access",
    "38.4.0": "7.1",
    "38.2.2": "7.0",
    "38.2.1": "7.0",
    "38.2.0": "7.0",
    "36.5.2": "6.2.3",
    "36.5.0": "6.2.2",
    "36.4.7": "6.2.1",
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4.0": "6.1",
    "36.3.0": "6.0",
}
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_POWER_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\w+)")
_POWER_STATUS = re.compile(r"pmode:(\d+)")


@dataclass(frozen=True)
class Board:
    """A machine.

    Parameters
    ----------
    model : str
        As its device tree calls it; empty where there is none.
    chip : str
        Such as ``"tegra234"``; empty for what is no Jetson.
    l4t : str
        Version of NVIDIA's Linux, such as ``"36.4.3"``; empty without one.
    """

    model: str = ""
    chip: str = ""
    l4t: str = ""

    @property
    def is_jetson(self) -> bool:
        """Whether it is one of NVIDIA's boards."""
        return bool(self.chip)

    @property
    def capability(self) -> str:
        """CUDA architecture of its GPU, such as ``"sm_87"``; empty if not known."""
        return _CAPABILITIES.get(self.chip, "")

    @property
    def jetpack(self) -> str:
        """JetPack that its Linux belongs to; empty if not known."""
        return _JETPACKS.get(self.l4t, "")


def read_board(root: Path = Path("/")) -> Board:
    """Return what machine a file system belongs to.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """
    tree = root / "proc/device-tree"
    compatible = read_text(tree / "compatible")
    found = re.search(r"nvidia,(tegra\d+)", compatible)
    release = _RELEASE.match(read_text(root / "etc/nv_tegra_release"))
    return Board(
        model=read_text(tree / "model"),
        chip=found[1] if found else "",
        l4t=f"{release[1]}.{release[2]}" if release else "",
    )


def power_mode(root: Path = Path("/")) -> str:
    """Return the name of a Jetson's power mode, such as ``"MAXN"``.

    Read from what ``nvpmodel`` keeps, so that it needs no right to run it; the mode's
    number if its name is not known, and empty where there is none.
    """
    status = _POWER_STATUS.search(read_text(root / "var/lib/nvpmodel/status"))
    if not status:
        return ""
    names = dict(_POWER_MODEL.findall(read_text(root / "etc/nvpmodel.conf")))
    number = str(int(status[1]))
    return str(names.get(number, number))[:32]


def read_text(path: Path) -> str:
    """Return a small file's text without its ends; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """Return the number in a file; `None` if there is none, or it cannot be read.

    Sensors of a part that is switched off cannot be.
    """
    try:
        return float(read_text(path))
    except ValueError:
        return None


def entries(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Yield what is in a folder in the order of names; nothing if it is not there."""
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return
