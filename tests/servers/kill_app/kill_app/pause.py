"""Points at which the test may kill a process."""

import os
import time
from pathlib import Path


def pause(folder: Path, point: str) -> None:
    """If the test asked for it, say who is here and wait to be killed."""
    try:
        (folder / f"pause-{point}").unlink()
    except FileNotFoundError:
        return
    write_whole(folder / f"at-{point}", str(os.getpid()).encode())
    time.sleep(3600)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there with all it has, or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(data)
    partial.replace(path)
