"""The ``flwr-caesar`` command."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import flwr_caesar

# Name of a sub-command: the module whose `main(arguments)` runs it, and its help.
COMMANDS = {
    "run": (
        "flwr_caesar.runner.command",
        "train over many devices, measure the bytes, compare strategies",
    ),
    "new": (
        "flwr_caesar.runner.new_command",
        "make a Flower app to begin with, which runs as it is",
    ),
    "watch": (
        "flwr_caesar.view.watch_command",
        "a page that shows a run while it goes on, or afterwards",
    ),
    "report": (
        "flwr_caesar.view.report_command",
        "what runs or sweeps came to, as one HTML file and as Markdown",
    ),
    "codec": (
        "flwr_caesar.codec_cli",
        "list the codecs, or measure some on your own updates",
    ),
    "export-android": (
        "flwr_caesar.android.command",
        "export a torch model to what a phone trains with, and compare both",
    ),
    "faults": (
        "flwr_caesar.faults.command",
        "for developers: inject faults and check that no learning is lost",
    ),
    "deploy": (
        "flwr_caesar.deploy.deploy_command",
        "set up the server of a fleet; try a whole fleet on this machine",
    ),
    "enrol": (
        "flwr_caesar.deploy.enrol_command",
        "on the server: let devices into the fleet, by tickets or by hand",
    ),
    "fleet": (
        "flwr_caesar.deploy.fleet_command",
        "on the server: which devices there are and how they are; remove one",
    ),
    "join": (
        "flwr_caesar.deploy.join_command",
        "on a device: join the fleet with a ticket",
    ),
    "node": (
        "flwr_caesar.deploy.node_command",
        "on a device: take part in the fleet",
    ),
    "doctor": (
        "flwr_caesar.deploy.doctor_command",
        "on a device or the server: find out why it does not work",
    ),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: flwr-caesar COMMAND [arguments]",
            "",
            "Federated learning over thin links, as a Flower plugin.",
            "",
            "commands:",
            *lines,
            "",
            "flwr-caesar COMMAND --help says more; flwr-caesar --version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``flwr-caesar``; by default that of this process.

    Returns
    -------
    int
        Exit status: 0, 1 if a run failed, 2 for a mistake in the command.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"flwr-caesar {flwr_caesar.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        choices = ", ".join(COMMANDS)
        print(
            f"flwr-caesar: no command {name!r}; there are: {choices}", file=sys.stderr
        )
        return 2
    if find_spec("flwr_caesar.strategies") is None:
        source = Path(flwr_caesar.__file__).parents[1]
        print(
            f"flwr-caesar: flwr_caesar is imported from {source}, which is its source "
            "and not installed: take that off PYTHONPATH, or pip install it",
            file=sys.stderr,
        )
        return 2
    try:
        status: int = import_module(COMMANDS[name][0]).main(rest)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_read_enough():
            raise
        return 1
    return status


def _is_read_enough() -> bool:
    """Whether nobody reads our output any more, as `head` does; drops the rest then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
