"""Reading a board's sensors from the lines that NVIDIA's ``tegrastats`` prints."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

from flwr_caesar.deploy.board import power_mode

from .sample import Sample, total_watts

COMMAND = "usr/bin/tegrastats"
# VDD_IN 5080mW/5080mW, since JetPack 5; VDD_IN 5080/5080 before.
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_NO_RAILS = ("RAM", "SWAP", "IRAM")
_TEMPERATURE = re.compile(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b")
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%")


def parse_line(line: str) -> Sample:
    """Return what a line of tegrastats says; what it lacks is left out."""
    rails = {
        name: int(milliwatts) / 1000
        for name, milliwatts in _RAIL.findall(line)
        if name not in _NO_RAILS
    }
    # A part that is switched off reads -256.
    degrees = [
        float(value)
        for name, value in _TEMPERATURE.findall(line)
        if float(value) > -100 and not name.upper().startswith("PMIC")
    ]
    load = _GPU.search(line)
    return Sample(
        watts=total_watts(rails),
        celsius=max(degrees, default=None),
        gpu_load=float(load[1]) if load else None,
    )


class Tegrastats:
    """A running ``tegrastats``, of whose lines the last one counts.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._last = Sample()
        self._process = subprocess.Popen(
            [str(root / COMMAND), "--interval", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def read(self) -> Sample:
        """Return what the last line said."""
        last = self._last
        return Sample(
            watts=last.watts,
            celsius=last.celsius,
            gpu_load=last.gpu_load,
            power_mode=power_mode(self._root),
        )

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._last = parse_line(line)
