"""`flwr-caesar run` in a process of its own, for tests of whole runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flwr_caesar.runner.processes import family
from flwr_caesar.runner.superlink import executable

_NEEDED = ("ray", "torch", "mlxtend")
MARKS = [
    pytest.mark.servers,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, _NEEDED)),
        reason=f"needs {', '.join(_NEEDED)}",
    ),
]
SMALL = [
    *("federation=small", "federation.num_supernodes=2", "data.partition.kind=iid"),
    *("rounds=2", "train.lr=0.05", "train.steps=20"),
]
INLINE = ["federation=inline", "federation.num_supernodes=2", "train.steps=1"]
MARK = "FLWR_CAESAR_TEST"
# Nothing waits this long unless it is broken; a busy machine may be very slow.
PATIENCE = 900.0


def start(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] = {},
    place: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a run whose processes `left_running` finds."""
    return subprocess.Popen(
        [executable("flwr-caesar"), "run", *arguments],
        cwd=place or folder,
        env={
            **os.environ,
            # Ray gives way to everything else on the machine, so to the other tests.
            "RAY_worker_niceness": "0",
            "HOME": str(folder),
            MARK: str(folder),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_to_its_end(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] = {},
    patience: float = PATIENCE,
) -> str:
    """Run it, see that it succeeds, and return what it printed."""
    with start(folder, *arguments, environment=environment) as command:
        printed, _ = command.communicate(timeout=patience)
    assert command.returncode == 0, printed
    return printed


def left_running(folder: Path) -> set[object]:
    """Return what runs of those started for a folder."""
    return set(family(-1, f"{MARK}={folder}"))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
