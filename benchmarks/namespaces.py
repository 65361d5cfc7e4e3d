"""Processes that a benchmark starts in network namespaces, and their logs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from flwr_caesar.runner.processes import end_family


class Processes:
    """What was started, until `stop` ends it and all that it started.

    Parameters
    ----------
    folder : Path
        Working folder, and that of the logs.
    environment : mapping of str to str
        Of every process.
    marker : str
        The variable of the environment, unlike that of other processes, by which
        those that belong to these are found.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], marker: str
    ) -> None:
        self.folder, self.environment = folder, environment
        self._mark = f"{marker}={environment[marker]}"
        self._started: list[subprocess.Popen[bytes]] = []

    def spawn(self, namespace: str, log: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in a namespace."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    @property
    def has_ended(self) -> bool:
        """Whether the newest ended."""
        return self._started[-1].poll() is not None

    def stop(self) -> None:
        """End every process."""
        for process in reversed(self._started):
            end_family(process, self._mark)
