"""All checks of a device, in the order in which their failures explain each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from flwr_caesar.deploy.board import read_board
from flwr_caesar.deploy.device_key import DeviceKeyError, load_key
from flwr_caesar.deploy.endings import port_taken
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.node_status import load_status
from flwr_caesar.deploy.supernode import port_is_free
from flwr_caesar.deploy.toml_table import NodeFileError
from flwr_caesar.deploy.words import Advice, duration

from .finding import Finding, failure, ok, warning
from .link import check_idle, check_link
from .machine import check_identity, check_l4t, check_swap
from .software import (
    ask_torch,
    check_codec,
    check_commands,
    check_flower,
    check_jtop,
    check_python,
    check_torch,
)
from .storage import check_free, check_wear


def check_device(path: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Yield what is found on a device.

    Parameters
    ----------
    path : Path
        Its ``node.toml``.
    root : Path
        Where the machine's file system begins.
    """
    board = read_board(root)
    yield from (check_python(), check_flower(), check_commands(), check_codec())
    yield from (check_l4t(board), check_swap(root), check_identity(root))
    yield check_jtop(root)
    try:
        node = NodeFile.load(path)
    except NodeFileError as err:
        yield failure("node.toml", Advice(str(err), "see docs/deployment.md"))
        return
    yield ok("node.toml", f"{node.name}, partition {node.partition_id}")
    yield check_torch(ask_torch(), board, gpu=node.limits.gpu)
    yield check_free(node.state_dir)
    yield check_wear(node.state_dir, root)
    yield check_idle(node.metered, root)
    yield from check_running(node, root, time.time())
    yield from check_key_file(node.key)
    try:
        key = load_key(node.key)
    except DeviceKeyError:
        return
    yield from check_link(node, key)


def check_key_file(path: Path) -> Iterator[Finding]:
    """Yield whether a key can be used, and by its owner only."""
    try:
        load_key(path)
        mode = path.stat().st_mode & 0o777
    except (DeviceKeyError, OSError) as err:
        advice = Advice(str(err), "flwr-caesar join TICKET makes one and enrols it")
        yield failure("key", advice)
        return
    if mode & 0o077:
        yield failure(
            "key",
            Advice(
                f"The key {path} can be read by others (mode {mode:04o})",
                f"run: chmod 600 {path}; if others were on this machine, join anew",
            ),
        )
        return
    yield ok("key", f"{path}, mode {mode:04o}")


def check_running(node: NodeFile, root: Path, now: float) -> Iterator[Finding]:
    """Yield what the device's node is doing, by its own last words."""
    status = load_status(node.state_dir)
    if status is not None and status.running(root):
        since = duration(max(now - status.at, 0))
        said = f"{status.line} ({since} ago)"
        if status.line.startswith(("Online", "The server answers")):
            yield ok("node", said)
        else:
            yield warning("node", Advice(said, "see the checks below"))
        return
    if not port_is_free(node.port):
        yield failure("node", port_taken(node.port))
        return
    last = f"; its last words: {status.line}" if status is not None else ""
    yield warning(
        "node",
        Advice(
            f"No node runs here{last}",
            "run: systemctl enable --now flwr-caesar-node, or flwr-caesar node",
        ),
    )
