"""``flwr-caesar doctor``: what keeps this machine from taking part, and what to do."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from .doctor.device import check_device
from .doctor.finding import Finding, exit_code
from .doctor.server import check_server
from .doctor.table import to_json, to_table
from .node_file import DEFAULT_PATH
from .server_folder import SETTINGS, default_folder


def main(arguments: Sequence[str]) -> int:
    """Check this machine, as a device, as a server, or as both.

    Returns
    -------
    int
        0 if all is well, 1 if something was warned of, 2 if something fails.
    """
    options = _parser().parse_args(arguments)
    findings = _findings(options.file, options.server)
    if options.json:
        print(to_json(findings))
    else:
        width = min(shutil.get_terminal_size((100, 24)).columns, 120)
        print(to_table(findings, width=width))
    return exit_code(findings)


def _findings(file: Path | None, server: Path | None) -> list[Finding]:
    """Check what is named; without a name, whatever this machine is."""
    if file is None and server is None:
        server = _if_there(default_folder(), SETTINGS)
        file = _if_there(DEFAULT_PATH, "")
    findings = list(check_server(server)) if server is not None else []
    if file is not None or server is None:
        findings += check_device(file or DEFAULT_PATH)
    return findings


def _if_there(path: Path, inside: str) -> Path | None:
    try:
        return path if (path / inside).exists() else None
    except OSError:  # others' folders cannot be looked into
        return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar doctor",
        description="Check this machine as a device of a fleet or as its server: each "
        "finding says what to do. Changes nothing, here or on the server.",
        epilog="Exits with 0 if all is well, 1 if there is something to look at, 2 if "
        "something keeps it from working.",
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="node.toml",
        help=f"of a device; default: {DEFAULT_PATH}",
    )
    parser.add_argument(
        "--server",
        type=Path,
        nargs="?",
        const=default_folder(),
        metavar="FOLDER",
        help="check the server whose folder this is (%(const)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
