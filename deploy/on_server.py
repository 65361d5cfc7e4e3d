"""Commands that change or show the fleet of a server's folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from .fleet import FleetError
from .server_folder import ServerFolder, ServerFolderError, ServerSettings


def run_on_server(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the command that the arguments choose, and say in words what is in its way.

    Parameters
    ----------
    parser : ArgumentParser
        Whose commands have a default `run`, called with what was parsed.
    arguments : sequence of str
        Of the command line.

    Returns
    -------
    int
        What the command returns; 1 if something is refused.
    """
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        # Where there is no server, that is said and not what of it is missing first.
        ServerSettings.load(ServerFolder(options.folder).settings_file)
        return run(options)
    except (FleetError, ServerFolderError) as err:
        print(f"{parser.prog}: {err}", file=sys.stderr)
    except PermissionError as err:
        print(f"{parser.prog}: {err}: use sudo", file=sys.stderr)
    return 1
