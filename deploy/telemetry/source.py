"""Which of a board's readers is used."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from .jtop import SOCKET, Jtop
from .sample import Sample
from .sysfs import read_sysfs
from .tegrastats import COMMAND, Tegrastats


class Source(Protocol):
    """Something that reads a board's sensors."""

    def read(self) -> Sample:
        """Return what they say now."""

    def close(self) -> None:
        """Stop."""


class Sysfs:
    """A board's sensors where Linux shows them.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self) -> Sample:
        """Return what they say now."""
        return read_sysfs(self._root)

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


def open_source(root: Path = Path("/")) -> tuple[str, Source]:
    """Return the best source of readings there is, and its name.

    jetson-stats if its service runs; else Linux's own sensors if these tell the power;
    else tegrastats; else what Linux tells. One that fails is passed over.
    """
    if (root / SOCKET).exists():
        # Whatever another's client raises: it is only one way to measure.
        with contextlib.suppress(Exception):
            return "jtop", Jtop(root)
    if read_sysfs(root).watts is None and (root / COMMAND).exists():
        with contextlib.suppress(OSError):
            return "tegrastats", Tegrastats(root)
    return "sysfs", Sysfs(root)
