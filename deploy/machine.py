"""What tells one machine from another, without telling which it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

# The board's serial number, where there is one, survives a new image; a machine id
# that is part of an image does not tell two boards apart.
_SOURCES = ("proc/device-tree/serial-number", "etc/machine-id")
_UNSET = ("", "uninitialized")


def machine_digest(root: Path = Path("/")) -> str | None:
    """Return a digest that is the same on this machine whenever it is asked.

    Parameters
    ----------
    root : Path
        Where the machine's file system begins.

    Returns
    -------
    str or None
        64 hexadecimal digits; None if the machine has neither a serial number nor a
        machine id.
    """
    for source in _SOURCES:
        try:
            text = (root / source).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        identity = text.strip("\0 \n")
        if identity not in _UNSET:
            return digest_of(f"{source}:{identity}")
    return None


def digest_of(identity: str) -> str:
    """Return the digest of any text that tells a machine from others."""
    return hashlib.sha256(f"flwr-caesar machine {identity}".encode()).hexdigest()
