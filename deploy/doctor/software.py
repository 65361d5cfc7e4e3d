"""Python, Flower, torch and jetson-stats of this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flwr_caesar.codec import kernel
from flwr_caesar.deploy.board import Board
from flwr_caesar.deploy.endings import superexec_missing
from flwr_caesar.deploy.telemetry.jtop import SOCKET
from flwr_caesar.deploy.words import Advice
from flwr_caesar.flower import flower_version
from flwr_caesar.runner.superlink import SuperLinkError, executable

from .finding import Finding, failure, ok, warning

# The first and the last that .ci/flowers and the servers' tests ran with.
_FLOWERS = ("1.41", "1.42")
_TORCH_SECONDS = 180
# In a process of its own: torch takes seconds and hundreds of megabytes to import.
_ASK_TORCH = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "built_for": torch.cuda.get_arch_list(),
    "device": "sm_%d%d" % torch.cuda.get_device_capability() if there else "",
}))
"""
_ASK_JTOP = "from jtop import jtop\nwith jtop() as jetson: print(jetson.ok())"


def check_python(running: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Whether Flower runs on this Python."""
    text = ".".join(map(str, running))
    if running < (3, 11):
        return failure(
            "Python",
            Advice(
                f"Python {text}: Flower needs 3.11",
                "on JetPack 6 use the container, whose Python is 3.12: docs/jetson.md",
            ),
        )
    return ok("Python", text)


def check_flower(installed: str | None = None) -> Finding:
    """Whether it is a Flower that this package works with."""
    found = flower_version().split()[-1] if installed is None else installed
    match = re.match(r"(\d+)\.(\d+)", found)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    advice = Advice(
        f"Flower {found} is installed; this flwr-caesar was tried with "
        f"{_FLOWERS[0]} to {_FLOWERS[-1]}",
        f"run: pip install 'flwr=={_FLOWERS[-1]}.*'",
    )
    first, last = (tuple(map(int, each.split("."))) for each in _FLOWERS)
    if number < first or number[0] > last[0]:
        return failure("Flower", advice)
    return warning("Flower", advice) if number > last else ok("Flower", found)


def check_commands() -> Finding:
    """Whether Flower's own commands are found."""
    try:
        executable("flower-supernode")
        found = executable("flower-superexec")
    except SuperLinkError:
        return failure("commands", superexec_missing())
    return ok("commands", found)


def check_codec() -> Finding:
    """Say what runs the loops of the codec: with numpy a message takes longer."""
    return ok("codec", kernel.in_use)


@dataclass(frozen=True)
class Torch:
    """What torch says of itself.

    Parameters
    ----------
    version : str
        Empty if it is not installed.
    built_for : tuple of str
        CUDA architectures that its build has code for.
    device : str
        That of the GPU it sees; empty if it sees none.
    """

    version: str = ""
    built_for: tuple[str, ...] = ()
    device: str = ""


def ask_torch() -> Torch:
    """Ask torch in a process of its own; empty if it cannot be imported."""
    try:
        version("torch")
    except PackageNotFoundError:
        return Torch()
    asked = _run(_ASK_TORCH)
    try:
        told = json.loads(asked.splitlines()[-1])
        return Torch(told["version"], tuple(told["built_for"]), told["device"])
    except (ValueError, KeyError, IndexError, TypeError):
        return Torch()


def check_torch(torch: Torch, board: Board, *, gpu: str) -> Finding:
    """Whether an app in torch would train where it is meant to.

    Parameters
    ----------
    torch : Torch
        What torch says.
    board : Board
        The machine.
    gpu : {"preferred", "required", "never"}
        Of the ``node.toml``.
    """
    if not torch.version:
        if gpu == "required":
            return failure("torch", Advice("torch cannot be imported here", _INSTALL))
        return ok("torch", "not installed; only apps in torch need it")
    if gpu == "never":
        return ok("torch", f"{torch.version}, on the CPU as [policy] gpu says")
    wanted = torch.device or board.capability
    judge = failure if gpu == "required" else warning
    # Code for an architecture runs on later ones of the same generation.
    if wanted and not any(_runs_on(built, wanted) for built in torch.built_for):
        has = ", ".join(torch.built_for) or "no CUDA at all"
        return judge(
            "torch",
            Advice(
                f"torch {torch.version} has no CUDA for {wanted} (it has {has}); "
                "training would run on the CPU",
                _INSTALL,
            ),
        )
    if torch.device:
        return ok("torch", f"{torch.version}, GPU {torch.device}")
    if wanted or gpu == "required":
        return judge(
            "torch",
            Advice(
                f"torch {torch.version} sees no GPU; training would run on the CPU",
                "in a container: docker run --runtime nvidia; else see the video group",
            ),
        )
    return ok("torch", f"{torch.version}, no GPU here")


def check_jtop(root: Path, answer: str | None = None) -> Finding:
    """Whether the client of jetson-stats fits the service, where there is one."""
    if not (root / SOCKET).exists():
        return ok("jtop", "no service; telemetry is read from Linux itself")
    try:
        client = version("jetson-stats")
    except PackageNotFoundError:
        client = ""
    said = _run(_ASK_JTOP) if answer is None else answer
    if "True" in said.split():
        return ok("jtop", client or "answers")
    if "Mismatch version" in said:
        detail = f"jtop {client} does not fit the version of the host's service"
    elif not client:
        detail = (
            "The service of jetson-stats runs, but its client is not installed here"
        )
    else:
        last = next((ln for ln in reversed(said.splitlines()) if ln.strip()), "silence")
        detail = f"jtop {client} cannot read its service: {last.strip():.120}"
    return warning(
        "jtop",
        Advice(
            detail,
            "install the version that `jtop --version` shows on the host; until then "
            "telemetry is read from Linux itself",
        ),
    )


_INSTALL = "install a torch that is built for this board: docs/jetson.md"


def _runs_on(built: str, wanted: str) -> bool:
    """Whether code for one architecture runs on another, as CUDA defines it."""
    kind, _, number = built.partition("_")
    have, want = number.rstrip("a"), wanted.removeprefix("sm_")
    if not (have.isdecimal() and want.isdecimal()):
        return False
    if kind == "compute":  # compiled further on the device
        return int(want) >= int(have)
    return have[:-1] == want[:-1] and int(want) >= int(have)


def _run(code: str) -> str:
    """Return what a Python program prints, its errors included."""
    try:
        return subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TORCH_SECONDS,
            text=True,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
