"""``flwr-caesar join``: on a device, join a fleet."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .device_key import DeviceKeyError
from .enrolment_request import make_request
from .fleet import FleetError
from .join import STATE, DeviceFolder, JoinError, ask, why_not, write_node
from .machine import digest_of, machine_digest
from .node_file import DEFAULT_PATH, NAME
from .node_file import DEFAULT_PORT as NODE_PORT
from .ticket import Ticket, TicketError
from .toml_table import NodeFileError
from .units import installable
from .whole_file import write_whole

_EPILOG = """\
`flwr-caesar enrol ticket NAME` on the server makes a ticket. The device's private key
is made here and never leaves it.

Without a connection to the server, write a request and carry it there:
  flwr-caesar join TICKET --request jetson-07.json
  flwr-caesar enrol approve jetson-07.json              on the server
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar join`` with these arguments.

    Returns
    -------
    int
        0, 1 if the device did not join, 2 for a mistake in the command.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.ticket is None and not (options.request and options.name):
        parser.error("give a ticket, or both --request and --name to do without one")
    try:
        return _join(options)
    except (
        TicketError,
        JoinError,
        DeviceKeyError,
        NodeFileError,
        FleetError,
    ) as err:
        print(f"flwr-caesar join: {err}", file=sys.stderr)
    except PermissionError as err:
        print(f"flwr-caesar join: {err}: use sudo, or --folder", file=sys.stderr)
    return 1


def _join(options: argparse.Namespace) -> int:
    folder = DeviceFolder(options.folder)
    joined = folder.joined_as()
    if joined is not None and not options.anew:
        raise JoinError(
            f"this device is {joined} already, says {folder.node_file}; to leave that "
            "fleet and join with a new key, add --anew"
        )
    ticket = None if options.ticket is None else _ticket(options.ticket)
    machine = (
        machine_digest() if options.machine is None else digest_of(options.machine)
    )
    key = folder.prepare(anew=joined is not None)
    if options.request is not None:
        name = options.name if ticket is None else ticket.name
        if not NAME.fullmatch(name):
            raise JoinError(f"{name!r:.80} is no name for a device, such as jetson-07")
        token = None if ticket is None else ticket.token
        request = make_request(key, name=name, machine=machine, token=token)
        write_whole(options.request, request)
        print(f"carry {options.request} to the server, for `flwr-caesar enrol approve`")
        if ticket is None:
            print("and bring back the ticket that it writes, for `flwr-caesar join`")
            return 0
    else:
        assert ticket is not None
        try:
            ticket = ask(ticket, key, machine=machine)
        except JoinError as err:
            if err.__cause__ is None:
                raise
            raise JoinError(why_not(ticket, folder, key) or str(err)) from None
    node = write_node(
        folder, ticket, state=options.state or _state(folder), port=options.port
    )
    print(
        f"this device is {node.name}, with part {node.partition_id} of "
        f"{node.num_partitions}; {folder.node_file} says how it takes part"
    )
    if options.request is None:
        problem = why_not(ticket, folder, key)
        if problem is not None:
            print(f"but: {problem}")
    return _start(folder, options)


def _start(folder: DeviceFolder, options: argparse.Namespace) -> int:
    if os.geteuid() == 0 and installable() and folder.node_file == DEFAULT_PATH:
        from .units import give_device, install_node

        give_device(folder)
        if not options.no_start:
            install_node()
            print("it takes part from now on; see `journalctl -u flwr-caesar-node`")
            return 0
    print(f"take part with: flwr-caesar node {folder.node_file}")
    return 0


def _ticket(text: str) -> Ticket:
    if text == "-":
        return Ticket.from_text(sys.stdin.readline())
    path = Path(text)
    try:
        is_file = len(text) < 4096 and path.is_file()
    except OSError:
        is_file = False  # the text of a ticket is too long for a name
    return Ticket.from_text(path.read_text("utf-8", "replace") if is_file else text)


def _state(folder: DeviceFolder) -> Path:
    return STATE if folder.node_file == DEFAULT_PATH else folder.path / "state"


def _default_folder() -> Path:
    if os.geteuid() == 0:
        return DEFAULT_PATH.parent
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "flwr-caesar"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar join",
        description="On a device: join a fleet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "ticket",
        nargs="?",
        help="the ticket, a file that has it, or - to read it from standard input",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=_default_folder(),
        help="for node.toml, the key and the authority's certificate (%(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        help=f"for what must survive a restart ({STATE}, or `state` in --folder)",
    )
    parser.add_argument(
        "--port",
        type=int,
        help=f"of the SuperNode on loopback ({NODE_PORT}); a second one on the same "
        "machine needs another",
    )
    parser.add_argument(
        "--anew",
        action="store_true",
        help="leave the fleet that this device is in: a new key, a new place; "
        "[policy], [metered] and [node-config] stay",
    )
    parser.add_argument(
        "--request",
        type=Path,
        metavar="FILE",
        help="write a request to be carried to the server, instead of asking it",
    )
    parser.add_argument("--name", help="of the device, for --request without a ticket")
    parser.add_argument(
        "--machine",
        metavar="TEXT",
        help="tells this machine from others; by default its serial number or machine "
        "id, which containers and namespaces of one machine share",
    )
    parser.add_argument(
        "--no-start",
        action="store_true",
        help="do not install and start the systemd unit",
    )
    return parser
