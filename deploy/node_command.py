"""``flwr-caesar node``: what a unit or a container on a device runs."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from flwr_caesar.runner.superlink import SuperLinkError, executable

from .board import power_mode
from .device_key import DeviceKeyError, load_key
from .device_status import DeviceStatus
from .endings import port_taken, superexec_missing
from .failures import Cause, Failure
from .link_meter import (
    LinkError,
    default_interface,
    load_used,
    read_counter,
    save_used,
)
from .node_file import DEFAULT_PATH, NodeFile
from .node_status import save_status
from .notify import Notifier
from .policy import Readings
from .probe import Probed, Standing, probe
from .supernode import SuperNode, port_is_free
from .supervisor import Supervisor, World
from .toml_table import NodeFileError
from .words import Advice


def main(arguments: Sequence[str]) -> int:
    """Run a device's SuperNode until SIGTERM or SIGINT.

    Returns
    -------
    int
        0 after a signal, 2 if ``node.toml`` cannot be used.
    """
    options = _parser().parse_args(arguments)
    try:
        node = NodeFile.load(options.file)
        node.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except NodeFileError as err:
        print(f"flwr-caesar node: {err}", file=sys.stderr)
        return 2
    except OSError as err:
        print(f"flwr-caesar node: [device] state-dir: {err}", file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Supervisor(node, world(node, options.file, stop)).run()
    return 0


def world(node: NodeFile, path: Path, stop: threading.Event) -> World:
    """Return the real world of a device: its SuperNode, its server, its link."""
    meter = _Meter(node)
    return World(
        start=lambda: SuperNode(node, path, echo=_echo),
        check=lambda: check(node),
        probe=lambda state: _probe(node, state),
        used=meter.read,
        wait=stop.wait,
        say=lambda line: _tell(node, line),
        notifier=Notifier(),
    )


def check(node: NodeFile) -> Advice | None:
    """Return what on this machine keeps a SuperNode from starting, or `None`."""
    try:
        load_key(node.key)
    except DeviceKeyError as err:
        return Advice(str(err), "see `flwr-caesar doctor`")
    try:
        executable("flower-supernode")
        executable("flower-superexec")
    except SuperLinkError:
        return superexec_missing()
    return None if port_is_free(node.port) else port_taken(node.port)


def _probe(node: NodeFile, state: str) -> Probed:
    host, port = node.host_port
    try:
        key = load_key(node.key)
    except DeviceKeyError as err:
        failure = Failure(Cause.OTHER, str(err))
        return Probed(standing=Standing.UNREACHABLE, failure=failure)
    status = DeviceStatus(state=state, power_mode=power_mode())
    return probe(host, port, ca=node.ca, key=key, headers=status.to_header())


class _Meter:
    """Counts a metered interface and keeps the count in the state folder."""

    def __init__(self, node: NodeFile) -> None:
        self._node = node
        self._said = ""

    def read(self, now: datetime) -> Readings:
        """Return what was used; nothing if the interface is not there."""
        if self._node.metered is None:
            return Readings()
        folder = self._node.state_dir
        try:
            interface = self._node.metered.interface or default_interface()
            used = load_used(folder, read_counter(interface), now)
            save_used(folder, used)
        except (LinkError, OSError) as err:
            if str(err) != self._said:
                self._said = str(err)
                _say(f"The metered link is not counted: {err}")
            return Readings()
        return Readings(bytes_today=used.today, bytes_this_month=used.this_month)


def _tell(node: NodeFile, line: str) -> None:
    """Say a line, and leave it for the doctor."""
    _say(line)
    # A full disk is no reason to end.
    with contextlib.suppress(OSError):
        save_status(node.state_dir, line, time.time())


def _say(line: str) -> None:
    print(f"flwr-caesar: {line}", flush=True)


def _echo(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar node",
        description="Run this device's SuperNode: checks, starts it, watches it, says "
        "in words why it ended, and starts it again. Ends on SIGTERM or Ctrl-C.",
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=DEFAULT_PATH,
        metavar="node.toml",
        help=f"default: {DEFAULT_PATH}, which `flwr-caesar join` writes",
    )
    return parser
