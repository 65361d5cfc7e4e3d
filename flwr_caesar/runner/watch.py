"""What a command started ends with it, also if the command is killed.

Flower's processes do not notice that the command which started them is gone, and a
signal that kills it leaves it no time to end them. A watcher, in a session of its own,
waits for the end of a pipe that only the command holds open, and ends them then.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

from flwr_caesar.runner.processes import end_marked

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 2.0
_DONE = b"done"


class Watch:
    """Ends processes and removes a folder if this process dies before `close`.

    Parameters
    ----------
    marker : str
        ``NAME=value`` in the environment of all processes to end, and of no other.
    folder : Path
        To be removed after them.
    """

    def __init__(self, marker: str, folder: Path) -> None:
        module = "flwr_caesar.runner.watch"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid()), marker, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def close(self) -> None:
        """End the watch: all is ended and removed already."""
        self._process.communicate(_DONE)


def main(arguments: list[str]) -> None:
    """Wait for the end of the process that started this one."""
    parent, marker, folder = arguments
    said = b""
    while os.getppid() == int(parent):
        # A child that the command forked may hold the pipe open for longer.
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if not ready:
            continue
        read = os.read(0, len(_DONE))
        said += read
        if not read:
            break
    if said == _DONE:
        return
    end_marked(marker, grace_s=_GRACE_SECONDS)
    shutil.rmtree(Path(folder), ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
