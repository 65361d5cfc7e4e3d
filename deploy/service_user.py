"""The system user that the server and devices run as: never root."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from .fleet import FleetError

USER = "flwr-caesar"


def require_user(home: Path) -> None:
    """Make the user if it is not there; needs root.

    Parameters
    ----------
    home : Path
        Its home folder, if it is made.
    """
    try:
        pwd.getpwnam(USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", str(home), "--shell", _no_shell(), USER]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise FleetError(
                f"there is no `useradd` here: make the system user {USER} yourself"
            ) from None
        if made.returncode:
            raise FleetError(
                f"the user {USER} cannot be made: {made.stderr.strip()}"
            ) from None


def give(path: Path) -> None:
    """Give a file, or a folder and all in it, to the user."""
    user, group = pwd.getpwnam(USER).pw_uid, grp.getgrnam(USER).gr_gid
    for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
        os.chown(each, user, group, follow_symlinks=False)


def _no_shell() -> str:
    return shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
