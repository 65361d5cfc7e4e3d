"""The SuperLink and the gate in the foreground, for where nothing else starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from flwr_caesar.runner.processes import end_family
from flwr_caesar.runner.superlink import executable

from .server_folder import ServerFolder

_MARKER = "FLWR_CAESAR_SERVE"
_LOOK_SECONDS = 0.2


def serve(folder: ServerFolder) -> int:
    """Run both until SIGINT or SIGTERM, or until one of them ends.

    Returns
    -------
    int
        0 if it was told to end, 1 if one of the two ended by itself.
    """
    marker = f"{_MARKER}={os.getpid()}"
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for part in ("superlink", "gate"):
            processes.append(
                subprocess.Popen(
                    [
                        executable("flwr-caesar"),
                        *("deploy", part, "--folder", str(folder.path.absolute())),
                    ],
                    env={**os.environ, _MARKER: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        while not stopped and all(process.poll() is None for process in processes):
            time.sleep(_LOOK_SECONDS)
    finally:
        for process in reversed(processes):
            end_family(process, marker, grace_s=30.0)
    return 0 if stopped else 1
