"""The core of the Android client in one JVM, asked over a pipe."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .toolchain import class_path

_LENGTH = struct.Struct(">I")
QUICK_START = "-XX:TieredStopAtLevel=1"
"""A test calls little often enough for the slower of two compilers to be worth it."""
_MAIN = "io.flwrcaesar.bench.BenchKt"


@dataclass(frozen=True)
class Reply:
    """What the bench answered: values, and runs of bytes."""

    values: dict[str, Any]
    blobs: list[bytes]


class Jvm:
    """A JVM that runs the bench beside the core's tests, while it is entered.

    Parameters
    ----------
    options : str
        Of the JVM, such as `QUICK_START`.
    """

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Jvm:
        command = ["java", "-Xmx2g", "-Xshare:auto", "-XX:+UseSerialGC"]
        self._process = subprocess.Popen(
            [*command, *self._options, "-cp", class_path(), _MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def ask(self, command: str, blobs: Sequence[bytes] = (), **arguments: Any) -> Reply:
        """Have a command run.

        Raises
        ------
        AssertionError
            If the core failed in another way than it says it may.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        text = json.dumps({"do": command, **arguments}).encode()
        parts = [_LENGTH.pack(len(text)), text, _LENGTH.pack(len(blobs))]
        for blob in blobs:
            parts += [_LENGTH.pack(len(blob)), blob]
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()
        values = json.loads(self._take())
        found = Reply(values, [self._take() for _ in range(self._number())])
        assert "failed" not in values, values["failed"]
        return found

    def _take(self) -> bytes:
        return self._read(self._number())

    def _number(self) -> int:
        (number,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return int(number)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        assert len(data) == size, "the JVM ended"
        return data
