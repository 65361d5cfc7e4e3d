"""The machine itself: its Linux, its memory, what tells it from others."""

from __future__ import annotations

from pathlib import Path

from flwr_caesar.deploy.board import Board, read_text
from flwr_caesar.deploy.machine import machine_digest
from flwr_caesar.deploy.words import Advice

from .finding import Finding, failure, ok, warning

_SMALL_MEMORY = 8 * 2**30
_OLDEST = 36


def check_l4t(board: Board) -> Finding:
    """Whether a Jetson's Linux is one that a torch of today runs on."""
    if not board.is_jetson:
        return ok("board", board.model or "no Jetson")
    if not board.l4t:
        return warning(
            "board",
            Advice(
                f"{board.model or board.chip}: the version of its L4T cannot be read",
                "in a container mount /etc/nv_tegra_release read-only",
            ),
        )
    name = f"{board.model}, L4T {board.l4t}"
    major = board.l4t.partition(".")[0]
    if major.isdecimal() and int(major) < _OLDEST:
        return warning(
            "board",
            Advice(
                f"{name}: JetPack 5 and older have no torch for Python 3.11",
                'flash JetPack 6 or 7, or train on the CPU: [policy] gpu = "never"',
            ),
        )
    return ok("board", f"{name}, JetPack {board.jetpack}" if board.jetpack else name)


def check_swap(root: Path) -> Finding:
    """Whether a board with little memory has swap that is not memory itself."""
    memory = _memory(root)
    total, swap = memory.get("MemTotal", 0), memory.get("SwapTotal", 0)
    devices = read_text(root / "proc/swaps").splitlines()[1:]
    only_zram = bool(devices) and all("zram" in line for line in devices)
    text = f"{total / 2**30:.0f} GiB of memory, {swap / 2**30:.0f} GiB of swap"
    if not total or total > _SMALL_MEMORY or (swap and not only_zram):
        return ok("swap", text if total else "cannot be read")
    what = "swap in memory only (zram)" if only_zram else "no swap"
    return warning(
        "swap",
        Advice(
            f"{total / 2**30:.0f} GiB of memory and {what}: Linux kills the app when "
            "it needs more",
            "add a swap file on NVMe, not on an SD card: fallocate -l 8G /swap && "
            "chmod 600 /swap && mkswap /swap && swapon /swap",
        ),
    )


def check_identity(root: Path) -> Finding:
    """Whether something tells this machine from one with the same image."""
    if machine_digest(root) is None:
        return failure(
            "identity",
            Advice(
                "This machine has neither a serial number nor a machine id, as an "
                "image before its first boot",
                "run: systemd-machine-id-setup",
            ),
        )
    if not read_text(root / "proc/device-tree/serial-number"):
        # What an image was cloned with is found by the server, which compares.
        return ok("identity", "machine id (no serial number)")
    return ok("identity", "the board's serial number")


def _memory(root: Path) -> dict[str, int]:
    found = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdecimal():
            found[key] = 1024 * int(fields[0])
    return found
