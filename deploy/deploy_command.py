"""``flwr-caesar deploy``: the server of a fleet, and a fleet to try on one machine."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr_caesar.runner.superlink import SuperLinkError

from .fleet import FleetError
from .pki import SERVER_DAYS, CertificateError, days_left, fingerprint, load_certificate
from .server import make_server, renew, run_superlink
from .server_folder import (
    ServerFolder,
    ServerFolderError,
    ServerSettings,
    add_folder,
)

_EPILOG = """\
on the server:
  sudo flwr-caesar deploy server --address fleet.example --start
  sudo flwr-caesar enrol ticket jetson-07
on the device:
  sudo flwr-caesar join TICKET

Try it all on this machine first, with three devices on slow links:
  sudo flwr-caesar deploy lab --devices 3 --rate 2mbit
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar deploy`` with these arguments.

    Returns
    -------
    int
        0, 1 if it could not be done, 2 for a mistake in the command.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (FleetError, ServerFolderError, CertificateError, SuperLinkError) as err:
        print(f"flwr-caesar deploy: {err}", file=sys.stderr)
        return 1
    except PermissionError as err:
        print(f"flwr-caesar deploy: {err}: use sudo", file=sys.stderr)
        return 1


def _server(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    fresh = not folder.settings_file.exists()
    known = ServerSettings(addresses=()) if fresh else folder.settings
    given = {
        name: getattr(options, name)
        for name in ("port", "superlink_port", "metrics_port", "plain_port")
        if getattr(options, name) is not None
    }
    settings = replace(known, addresses=tuple(dict.fromkeys(options.address)), **given)
    new = make_server(folder, settings)
    authority = load_certificate(folder.authority_certificate.read_bytes())
    print(f"{'made' if new else 'kept'} the fleet in {folder.path}")
    print(f"  devices dial {settings.address}")
    print(f"  authority SHA-256 {fingerprint(authority)}")
    from .units import install, installable, start, write

    if os.geteuid() == 0 and installable():
        units = install(folder)
        print(f"  units: {', '.join(unit.name for unit in units)}")
        if options.start:
            start()
            print("  started; `journalctl -u flwr-caesar-gate` has its log")
        else:
            print("  start with: systemctl enable --now flwr-caesar-gate")
    else:
        units = write(folder, folder.path / "systemd")
        print(f"  units to install by hand: {folder.path / 'systemd'}")
    print("\nnext: flwr-caesar enrol ticket NAME")
    if options.start and not (os.geteuid() == 0 and installable()):
        print("no systemd here, or not root: serving until Ctrl-C", flush=True)
        return _serve(options)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from .serve import serve

    folder = ServerFolder(options.folder)
    folder.settings  # noqa: B018  # says what is missing before anything starts
    return serve(folder)


def _superlink(options: argparse.Namespace) -> int:
    run_superlink(ServerFolder(options.folder))
    return 1


def _gate(options: argparse.Namespace) -> int:
    from .gate_server import GateServer

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        GateServer(ServerFolder(options.folder)).run()
    except OSError as err:
        print(f"flwr-caesar deploy gate: {err}", file=sys.stderr)
        return 1
    return 0


def _renew(options: argparse.Namespace) -> int:
    folder = ServerFolder(options.folder)
    folder.settings  # noqa: B018  # says that there is no server, if there is none
    if options.if_days_left is not None and folder.gate_identity.exists():
        left = days_left(folder.gate_certificate())
        if left > options.if_days_left:
            print(f"the certificate is good for {left:.0f} more days; not renewed")
            return 0
    identity = renew(folder, days=options.days)
    print(
        f"renewed until {identity.certificate.not_valid_after_utc:%Y-%m-%d}; a running "
        "gate takes it within seconds, and no run is interrupted"
    )
    return 0


def _lab(options: argparse.Namespace) -> int:
    from .lab_command import run_lab

    return run_lab(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar deploy",
        description="Set up the server of a fleet, or try a whole fleet on this "
        "machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    server = _command(commands, "server", _server, "make a server, or change it")
    server.add_argument(
        "--address",
        action="append",
        required=True,
        metavar="NAME",
        help="a DNS name or IP address by which devices dial this machine, without "
        "scheme and port; give all there are, and first the one that tickets carry",
    )
    server.add_argument("--port", type=int, help="for devices (8443)")
    server.add_argument("--superlink-port", type=int, help="on loopback (8000)")
    server.add_argument("--metrics-port", type=int, help="on loopback (9465)")
    server.add_argument(
        "--plain-port",
        type=int,
        help="on loopback, without TLS: for an nginx or Caddy that has TLS and serves "
        "--port in the gate's place",
    )
    server.add_argument(
        "--start",
        action="store_true",
        help="start it: by systemd if there is one and this is root, else here",
    )

    _command(commands, "serve", _serve, "run SuperLink and gate here, until Ctrl-C")
    _command(commands, "superlink", _superlink, "run the SuperLink only")
    _command(commands, "gate", _gate, "run the gate only")
    renewal = _command(commands, "renew", _renew, "renew the gate's certificate")
    renewal.add_argument(
        "--if-days-left",
        type=float,
        metavar="DAYS",
        help="only if the certificate expires within that time",
    )
    renewal.add_argument(
        "--days", type=int, default=SERVER_DAYS, help="how long it is valid (397)"
    )
    lab = commands.add_parser(
        "lab",
        help="a whole fleet on this Linux machine: server, gate, devices on slow links",
        description="Make network namespaces for a server and some devices, joined by "
        "shaped links, let the devices join by tickets, and run an app. Needs root and "
        "iproute2. At the end, on an error and on Ctrl-C everything is taken down.",
    )
    from .lab_command import add_arguments

    add_arguments(lab)
    lab.set_defaults(run=_lab)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    whole = f"{text[0].upper()}{text[1:]}."
    parser = commands.add_parser(name, help=text, description=whole)
    add_folder(parser)
    parser.set_defaults(run=run)
    return parser
