"""Where a device keeps its state: how much is free, and how long the medium lasts."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flwr_caesar.deploy.board import read_text
from flwr_caesar.deploy.words import Advice

from .finding import Finding, failure, ok, warning

_SPARE = 200 * 10**6
ROUNDS_A_DAY = 100
_TERABYTE = 10**12


def check_free(folder: Path, free: int | None = None) -> Finding:
    """Whether the state fits twice: it is written anew before the old one goes.

    Parameters
    ----------
    folder : Path
        The device's state folder.
    free : int, optional
        Bytes free there; measured by default.
    """
    try:
        free = shutil.disk_usage(_existing(folder)).free if free is None else free
    except OSError as err:
        return failure("disk", Advice(f"{folder} cannot be read: {err}", _OWNER))
    needed = max(2 * state_bytes(folder), _SPARE)
    if free < needed:
        return failure(
            "disk",
            Advice(
                f"{_size(free)} are free for the state in {folder}; it needs "
                f"{_size(needed)}",
                "free some, or move [device] state-dir to a larger disk",
            ),
        )
    if not os.access(_existing(folder), os.W_OK):
        return failure("disk", Advice(f"{folder} cannot be written to", _OWNER))
    return ok("disk", f"{_size(free)} free for the state in {folder}")


def check_wear(folder: Path, root: Path = Path("/")) -> Finding:
    """Whether the state is on an SD card, which wears out under it.

    Parameters
    ----------
    folder : Path
        The device's state folder.
    root : Path
        Where the machine's file system begins.
    """
    medium = medium_of(folder, root)
    written = round_bytes(folder)
    if medium != "SD":
        return ok("medium", {"MMC": "eMMC"}.get(medium, medium) or "no SD card")
    if written == 0:
        text = "State is on an SD card; each round rewrites all of it"
    else:
        a_year = 365 * ROUNDS_A_DAY * written
        text = (
            f"State is on an SD card; {_size(written)} a round, {ROUNDS_A_DAY} rounds "
            f"a day: {a_year / _TERABYTE:.1f} TB a year"
        )
    fix = "move [device] state-dir to an NVMe or USB disk"
    return warning("medium", Advice(text, fix))


def medium_of(folder: Path, root: Path = Path("/")) -> str:
    """Return the kind of disk a folder is on: ``SD``, ``MMC``, ``NVMe``, or empty."""
    try:
        number = _existing(folder).stat().st_dev
    except OSError:
        return ""
    link = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    try:
        block = link.resolve(strict=True)
    except OSError:
        return ""
    if "nvme" in block.name:
        return "NVMe"
    # A partition's folder lies in that of its disk.
    for disk in (block, block.parent):
        kind = read_text(disk / "device/type")
        if kind in ("SD", "MMC"):
            return kind
    return ""


def state_bytes(folder: Path) -> int:
    """Return the bytes of a device's state."""
    return sum(size for _, size in _files(folder))


def round_bytes(folder: Path) -> int:
    """Return about how many bytes a round writes: a part of the model, and the rest.

    Of the model a round adds one file of changes, or where there are none all of it.
    """
    sizes: dict[str, list[int]] = {"model": [], "change": []}
    rest = 0
    for name, size in _files(folder):
        kind = name.partition("-")[0]
        if kind in sizes:
            sizes[kind].append(size)
        else:
            rest += size
    model = sizes["change"] or sizes["model"]
    return rest + (sum(model) // len(model) if model else 0)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for file in folder.glob("[0-9a-f]*/*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            yield file.name, file.stat().st_size


_OWNER = "run as the user that the node runs as; `ls -ld` shows whose folder it is"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}".replace(".0 ", " ")
    return f"{count / 1e3:.0f} kB"
