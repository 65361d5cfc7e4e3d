"""systemd units: filled in for this installation, and installed."""

from __future__ import annotations

import grp
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from flwr_caesar.runner.superlink import executable

from .fleet import FleetError
from .server_folder import ServerFolder
from .service_user import USER, give, require_user
from .whole_file import write_whole

if TYPE_CHECKING:
    from .join import DeviceFolder

UNITS = Path("/etc/systemd/system")
_RUNNING = Path("/run/systemd/system")
_SERVER = (
    "flwr-caesar-superlink.service",
    "flwr-caesar-gate.service",
    "flwr-caesar-renew.service",
    "flwr-caesar-renew.timer",
)
_NODE = "flwr-caesar-node.service"
_GPU_GROUPS = ("video", "render")
# Units run with ProtectHome, so what they start cannot be there.
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))


def installable() -> bool:
    """Return whether systemd runs this machine."""
    return _RUNNING.is_dir()


def fill(name: str, folder: Path) -> str:
    """Return the text of a unit for this installation.

    Parameters
    ----------
    name : str
        Of the unit.
    folder : Path
        What it works on: the server's folder, or the device's.
    """
    text = files(__package__).joinpath("files", "systemd", name).read_text("utf-8")
    values = {
        "@FLWR_CAESAR@": executable("flwr-caesar"),
        "@FOLDER@": str(folder.absolute()),
        "@USER@": USER,
        "@GROUPS@": " ".join(filter(_is_group, _GPU_GROUPS)),
    }
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def write(folder: ServerFolder, target: Path) -> list[Path]:
    """Write the server's units into a folder, and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name in _SERVER:
        write_whole(target / name, fill(name, folder.path))
        written.append(target / name)
    return written


def install(folder: ServerFolder) -> list[Path]:
    """Install the server's units and give their user what is theirs; needs root."""
    _require_visible()
    require_user(folder.state)
    # Not the folder itself, nor the authority: who faces devices signs no certificates.
    for owned in (folder.state, folder.gate_identity, folder.superlink_key):
        give(owned)
    written = write(folder, UNITS)
    _systemctl("daemon-reload")
    return written


def start() -> None:
    """Start the server's units, now and at each boot."""
    _systemctl("enable", "--now", "flwr-caesar-renew.timer")
    _systemctl("enable", *_SERVER[:2])
    _systemctl("restart", *_SERVER[:2])


def give_device(folder: DeviceFolder) -> None:
    """Give a device's folder to the user of its unit; needs root."""
    require_user(Path("/nonexistent"))
    give(folder.path)


def install_node() -> None:
    """Install and start the device's unit; needs root."""
    _require_visible()
    write_whole(UNITS / _NODE, fill(_NODE, Path("/etc/flwr-caesar")))
    _systemctl("daemon-reload")
    _systemctl("enable", _NODE)
    _systemctl("restart", _NODE)


def _require_visible() -> None:
    here = Path(sys.prefix)
    for hidden in _HIDDEN:
        if here.is_relative_to(hidden):
            raise FleetError(
                f"flwr-caesar is installed in {here}, which no service can see: "
                "install it elsewhere, such as in `python3 -m venv /opt/flwr-caesar`"
            )


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FleetError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
