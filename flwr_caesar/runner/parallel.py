"""Several runs of a sweep at once, each in a process of its own: ``-j N``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Lock

from flwr_caesar.runner.job import Job
from flwr_caesar.runner.text import span

_STOP_SECONDS = 60.0
_COMMAND = (sys.executable, "-P", "-m", "flwr_caesar.runner.job")


class Pool:
    """Runs jobs, some of them at once, and passes on what they say.

    Parameters
    ----------
    at_once : int
        How many, 1 or more.
    say : callable
        Called with each line.
    command : sequence of str
        What runs one job, which it reads from its standard input.
    """

    def __init__(
        self,
        at_once: int,
        say: Callable[[str], None],
        *,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self.at_once = at_once
        self._tell_user = say
        self._command = list(command)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock, self._telling = Lock(), Lock()
        self._stopped = False

    def run(self, jobs: Sequence[Job]) -> list[int]:
        """Run all jobs; return the exit status of each.

        Whatever ends this early, such as a Ctrl-C, ends the jobs that run; each of them
        ends what it started.
        """
        begun = time.monotonic()
        with ThreadPoolExecutor(self.at_once) as pool:
            futures = [
                pool.submit(self._run, number, job)
                for number, job in enumerate(jobs, 1)
            ]
            try:
                left = set(futures)
                while left:
                    done, left = wait(left, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    if left:
                        self._tell(len(jobs), len(left), time.monotonic() - begun)
            except BaseException:
                self._stop()
                raise
        return [future.result() for future in futures]

    def _run(self, number: int, job: Job) -> int:
        with self._lock:
            if self._stopped:
                return 1
            self._say(f"[{number}] {job.folder}")
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a Ctrl-C comes here, and from here
            )
            self._running.add(child)
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(job.to_json())
            child.stdin.close()
            for line in child.stdout:
                self._say(f"[{number}] {line.rstrip()}")
        with self._lock:
            self._running.remove(child)
        return child.returncode

    def _tell(self, jobs: int, left: int, seconds: float) -> None:
        running = min(left, self.at_once)
        rest = span(seconds / (jobs - left) * left)
        self._say(
            f"{jobs - left} of {jobs} jobs ended, {running} running, "
            f"{left - running} waiting; {rest} to go"
        )

    def _say(self, line: str) -> None:
        with self._telling:  # lines of several threads
            self._tell_user(line)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for child in running:
            child.terminate()
        for child in running:
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
