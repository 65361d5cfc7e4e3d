"""Writing a file so that a crash leaves the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


def write_whole(path: Path, data: bytes | str, *, mode: int = PUBLIC) -> None:
    """Write a file by making another and renaming it.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    data : bytes or str
        Its whole content; text is written as UTF-8.
    mode : int
        Its permissions, from the first byte on.
    """
    content = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if path.exists():
                _keep_owner(path, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _keep_owner(path: Path, handle: int) -> None:
    """Give a file to whom the one belongs that it replaces, if that is allowed."""
    known = path.stat()
    if os.geteuid() == 0:
        os.fchown(handle, known.st_uid, known.st_gid)
