"""``flwr-caesar enrol``: on the server, let devices into the fleet."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .control import SuperLinkDownError, connect
from .enrolment import DAYS, approve, enrol, issue_tickets, numbered
from .enrolment_request import LARGEST_BYTES, RequestError, read_request
from .fleet import Fleet, FleetError
from .on_server import run_on_server
from .pki import load_certificate
from .registration import reconcile
from .server_folder import ServerFolder, add_folder
from .ticket import Ticket
from .ticket_qr import require_qr, to_svg, to_terminal
from .whole_file import PRIVATE, write_whole

_EPILOG = """\
A ticket is one line of text, good for one device, once. On the device:
  sudo flwr-caesar join TICKET
A phone reads it with its camera: flwr-caesar enrol ticket NAME --qr

Devices without a connection write a request, which you bring here:
  flwr-caesar join TICKET --request jetson-07.json     on the device
  flwr-caesar enrol approve *.json                     here
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar enrol`` with these arguments.

    Returns
    -------
    int
        0, 1 if something was refused, 2 for a mistake in the command.
    """
    return run_on_server(_parser(), arguments)


def _ticket(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    if options.qr:
        require_qr()
    tickets = issue_tickets(
        Fleet(folder.fleet_file),
        numbered(options.name, options.count),
        address=folder.settings.address,
        authority=load_certificate(folder.authority_pem()),
        partition=options.partition,
        partitions=options.partitions,
        days=options.days,
    )
    if options.output is None:
        for ticket in tickets:
            if options.count > 1:
                print(f"# {ticket.name}")
            print(ticket.to_text())
            if options.qr:
                _show(ticket)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    for ticket in tickets:
        path = options.output / f"{ticket.name}.ticket"
        write_whole(path, ticket.to_text() + "\n", mode=PRIVATE)
        print(path)
        if options.qr:
            picture = path.with_suffix(".svg")
            write_whole(picture, to_svg(ticket), mode=PRIVATE)
            print(picture)
    return 0


def _show(ticket: Ticket) -> None:
    text, columns = to_terminal(ticket)
    print(text, end="")
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < columns:
        print(
            f"the code takes {columns} columns: widen the terminal, or make its "
            "letters smaller; or write a picture with --output FOLDER",
            file=sys.stderr,
        )


def _approve(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    fleet = Fleet(folder.fleet_file)
    refused = 0
    for path in options.requests:
        try:
            _approve_one(folder, fleet, path, options)
        except (RequestError, FleetError, OSError) as err:
            refused += 1
            print(f"{path}: not let in: {err}", file=sys.stderr)
    try:
        with connect(folder) as control:
            reconcile(fleet, control)
    except SuperLinkDownError as err:
        print(f"the gate registers them when the SuperLink is up: {err}")
    return 1 if refused else 0


def _approve_one(
    folder: ServerFolder, fleet: Fleet, path: Path, options: argparse.Namespace
) -> None:
    with path.open("rb") as file:
        request = read_request(file.read(LARGEST_BYTES + 1))
    if request.token is not None:
        device = enrol(fleet, request)
        print(f"{path}: {device.name} is in the fleet, and can connect as it is")
        return
    device, ticket = approve(
        fleet,
        request,
        address=folder.settings.address,
        authority=load_certificate(folder.authority_pem()),
        partition=options.partition,
        partitions=options.partitions,
    )
    answer = path.with_suffix(".ticket")
    write_whole(answer, ticket.to_text() + "\n", mode=PRIVATE)
    print(
        f"{path}: {device.name} is in the fleet; bring {answer} back to it, for "
        f"`flwr-caesar join {answer.name}`"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar enrol",
        description="On the server: let devices into the fleet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    ticket = commands.add_parser(
        "ticket",
        help="make a ticket, or many",
        description="Make a ticket: one line of text, good for one device, once.",
    )
    ticket.add_argument("name", help="what to call the device, such as jetson-07")
    ticket.add_argument(
        "--count",
        type=int,
        default=1,
        help="make tickets for so many devices, numbered on from NAME",
    )
    ticket.add_argument(
        "--days", type=float, default=DAYS, help="how long they are good (%(default)g)"
    )
    ticket.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write NAME.ticket files there instead of showing the tickets",
    )
    ticket.add_argument(
        "--qr",
        action="store_true",
        help="show a QR code too, for the camera of a phone; with --output, write it "
        "as NAME.svg",
    )
    ticket.set_defaults(run=_ticket)
    approval = commands.add_parser(
        "approve",
        help="let devices in by request files",
        description="Let devices in that wrote a request, as they cannot reach the "
        "server. Beside each file comes its answer, to be carried back.",
    )
    approval.add_argument(
        "requests",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="what `flwr-caesar join TICKET --request FILE` wrote",
    )
    approval.set_defaults(run=_approve)
    for command in (ticket, approval):
        command.add_argument(
            "--partition",
            type=int,
            help="which part of the data the first one has, counted from 0; by default "
            "the lowest free one, or that which the name had before",
        )
        command.add_argument(
            "--partitions",
            type=int,
            help="of how many parts; by default as many as there are devices",
        )
        add_folder(command)
    return parser
