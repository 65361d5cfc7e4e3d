"""``flwr-caesar fleet``: on the server, which devices there are and how they are."""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from .control import SuperLinkDownError, connect
from .fleet import Fleet, FleetError
from .fleet_report import rows, table
from .on_server import run_on_server
from .server_folder import CONNECTION, ServerFolder, add_folder


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar fleet`` with these arguments.

    Returns
    -------
    int
        0, 1 if something cannot be done, 2 for a mistake in the command.
    """
    return run_on_server(_parser(), arguments)


def _status(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    fleet = Fleet(folder.fleet_file)
    problem = None
    try:
        with connect(folder) as control:
            nodes = dict(control.nodes())
    except SuperLinkDownError as err:
        nodes, problem = None, str(err)
    listed = rows(fleet.devices(), fleet.seen(), nodes, now=time.time())
    if options.json:
        print(json.dumps([row.to_json() for row in listed], indent=2))
    else:
        print(table(listed) if listed else _nobody())
        if problem:
            print(f"\nstates are unknown: {problem}")
    return 0


def _nobody() -> str:
    return "no devices yet: `flwr-caesar enrol ticket NAME` lets one in"


def _remove(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    fleet = Fleet(folder.fleet_file)
    for name in options.names:
        device = fleet.remove(name)
        try:
            with connect(folder) as control:
                node = control.nodes().get(device.public_key)
                if node is not None:
                    control.unregister(node.node_id)
        except SuperLinkDownError as err:
            print(f"{name} is removed when the SuperLink is up: {err}")
        else:
            print(f"{name} is out of the fleet; its key can connect no more")
    return 0


def _connect(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")
    path = home / "config.toml"
    text = path.read_text("utf-8") if path.exists() else ""
    wanted = {
        "address": folder.settings.superlink,
        "root-certificates": str(folder.authority_certificate.absolute()),
    }
    try:
        known = tomllib.loads(text).get("superlink", {}).get(options.name)
    except tomllib.TOMLDecodeError as err:
        raise FleetError(f"{path} is no TOML: {err}") from err
    if known is not None and known != wanted:
        raise FleetError(
            f"{path} has another connection of the name {options.name}: choose one by "
            "--name"
        )
    if known is None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in wanted.items()]
        home.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            head = "\n" if text else ""
            head += f"[superlink.{options.name}]"
            file.write("\n".join([head, *lines, ""]))
    print(f"{path} has the connection {options.name}: `flwr run . {options.name}`")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar fleet",
        description="On the server: which devices there are and how they are.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    status = commands.add_parser(
        "status",
        help="a line a device: state, last seen, versions, power mode, bytes",
        description="Show a line for each device: its state, when it was seen last, "
        "its versions and power mode. Bytes are HTTP bytes at the gate, headers "
        "included, TLS and TCP not, since the device joined.",
    )
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    remove = commands.add_parser(
        "remove",
        help="take devices out",
        description="Take devices out. A key that was taken out can never connect "
        "again; the machine may join again, with a new key.",
    )
    remove.add_argument(
        "names", nargs="+", metavar="NAME", help="of a device, as its ticket has it"
    )
    remove.set_defaults(run=_remove)
    connection = commands.add_parser(
        "connect",
        help="let `flwr run` of this user reach the server",
        description="Add the server to this user's Flower configuration.",
    )
    connection.add_argument(
        "--name", default=CONNECTION, help="of the connection (%(default)s)"
    )
    connection.set_defaults(run=_connect)
    for command in (status, remove, connection):
        add_folder(command)
    return parser
