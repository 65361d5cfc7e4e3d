"""A device on a JVM, in a process of its own."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flwr_caesar.codec import get_codec

from .jvm import QUICK_START
from .toolchain import class_path

_MAIN = "io.flwrcaesar.bench.NodeMainKt"
_PATIENCE = 600.0


def packed_examples(x: Any, y: Any, classes: int) -> bytes:
    """Return labelled examples as the node reads them."""
    features = np.ascontiguousarray(x, "<f4").reshape(len(y), -1)
    head = struct.pack("<III", *features.shape, classes)
    return head + features.tobytes() + np.asarray(y, "<i4").tobytes()


def write_examples(path: Path, x: Any, y: Any, classes: int) -> None:
    """Write labelled examples for a node."""
    path.write_bytes(packed_examples(x, y, classes))


class KotlinNode:
    """A node whose key, states and message in flight are in a folder.

    Parameters
    ----------
    folder : Path
        For the node.
    examples : Path
        From `write_examples`.
    server : str
        ``http://host:port`` of a SuperLink, or the path of a ticket.
    delay : float
        Seconds between training and the reply, to be killed in.
    initial : mapping of str to ndarray, optional
        Model that the run starts from.
    before : sequence of str
        Command that runs it, such as in a namespace.
    """

    def __init__(
        self,
        folder: Path,
        examples: Path,
        server: str,
        *,
        delay: float = 0.0,
        initial: Mapping[str, Any] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._server, self._delay = folder, server, delay
        self._before = before
        if initial is not None:
            frame, _ = get_codec("dense").encode(initial)
            (folder / "initial").write_bytes(frame)
        self._examples = examples
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> KotlinNode:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What it said, of all its lives."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self, *, delay: float | None = None) -> None:
        """Start its process, after it was killed too."""
        delay = self._delay if delay is None else delay
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._before,
                    *("java", "-Xmx512m", "-XX:+UseSerialGC", QUICK_START),
                    *("-cp", class_path()),
                    *(_MAIN, str(self.folder), str(self._examples), self._server),
                    str(int(1000 * delay)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """Kill it, as a system that needs its memory does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait_handled(self, kind: str, is_running: Callable[[], bool]) -> None:
        """Wait until it has handled a message of a kind, in a run that goes on."""
        handled = self.folder / "handled"
        deadline = time.monotonic() + _PATIENCE
        while not (handled.exists() and handled.read_text() == kind):
            assert time.monotonic() < deadline, self.log
            assert is_running(), "the run ended"
            time.sleep(0.05)
