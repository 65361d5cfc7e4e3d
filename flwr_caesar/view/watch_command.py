"""``flwr-caesar watch``: a page that shows a run, on loopback."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from flwr_caesar.runner.folder import OVERRIDES
from flwr_caesar.runner.superlink import free_port
from flwr_caesar.view.read import read_run, stamp
from flwr_caesar.view.server import Source, application

_MOST_BYTES = 1 << 25
_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar watch`` with these arguments.

    Returns
    -------
    int
        0, or 1 if there is nothing to watch.
    """
    parser = argparse.ArgumentParser(
        prog="flwr-caesar watch",
        description="Serve a page that shows a run: in progress, finished or resumed. "
        "Only this machine can reach it.",
        epilog="A run on another machine: `ssh -L 8000:127.0.0.1:PORT` to where "
        "`flwr-caesar watch` runs, or `flwr-caesar watch http://127.0.0.1:8000`.",
    )
    parser.add_argument("run", help="folder of a run or a sweep, or the URL of a page")
    parser.add_argument("--port", type=int, help="of loopback; a free one by default")
    given = parser.parse_args(arguments)
    try:
        source = source_of(given.run)
    except OSError as error:
        print(f"flwr-caesar watch: {error}", file=sys.stderr)
        return 1
    port = given.port or free_port()
    print(f"http://127.0.0.1:{port} shows {given.run}; Ctrl-C ends it", flush=True)
    try:
        uvicorn.run(
            application(source), host="127.0.0.1", port=port, log_level="warning"
        )
    except KeyboardInterrupt:
        return 0
    except SystemExit as leaving:  # of uvicorn, which has said why
        return leaving.code if isinstance(leaving.code, int) else 1
    return 0


def source_of(run: str) -> Source:
    """Return where a page gets its data.

    Parameters
    ----------
    run : str
        A folder, or the URL of another page.

    Raises
    ------
    OSError
        If there is no such folder.
    """
    if run.startswith(("http://", "https://")):
        return _Page(run)
    folder = Path(run)
    if not folder.is_dir():
        raise FileNotFoundError(f"{run}: no such folder")
    return _Folder(folder)


class _Folder:
    """A run's folder, or a sweep's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, run: str, known: str) -> Mapping[str, Any] | None:
        runs = {path.parent.name: path.parent for path in self._own()}
        folder = runs.get(run) or next(iter(runs.values()), self._folder)
        if known == stamp(folder):
            return None
        return {**read_run(folder), "runs": list(runs)}

    def _own(self) -> list[Path]:
        found = [*self._folder.glob(f"*/{OVERRIDES}")]
        return sorted(found, key=lambda path: _order(path.parent.name))


class _Page:
    """Another page's data."""

    def __init__(self, url: str) -> None:
        self._url = urllib.parse.urljoin(url, "/data")

    def __call__(self, run: str, known: str) -> Mapping[str, Any] | None:
        query = urllib.parse.urlencode({"run": run, "known": known})
        try:
            with urllib.request.urlopen(
                f"{self._url}?{query}", timeout=_SECONDS
            ) as got:
                if got.status == 204:
                    return None
                told = json.loads(
                    got.read(_MOST_BYTES), parse_constant=lambda name: None
                )
        except (urllib.error.URLError, OSError, ValueError, RecursionError) as error:
            return {"unreachable": f"{self._url}: {error}"}
        return told if isinstance(told, dict) else {"unreachable": "it tells no run"}


def _order(name: str) -> tuple[int, str]:
    head = name.partition("-")[0]
    return (int(head) if head.isdigit() else sys.maxsize, name)
