"""A run on a terminal: one table that is updated in place, or plain lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flwr_caesar.results.amounts import amount
from flwr_caesar.results.files import NOW
from flwr_caesar.runner.progress import Progress, fewer_so_far
from flwr_caesar.runner.text import span

_REFRESH_SECONDS = 0.5
_REASON = 60


class Terminal:
    """Prints lines; on a terminal, a run's rounds as a table that stays in place.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False)

    def __call__(self, line: str) -> None:
        """Print a line."""
        print(line, file=self.console.file, flush=True)

    @contextmanager
    def following(self, progress: Progress, folder: Path) -> Iterator[Screen]:
        """Show a run while it goes on."""
        with Live(console=self.console, auto_refresh=False) as live:
            screen = Screen(progress, folder, live)
            yield screen
            screen.show(at_once=True)


class Screen:
    """The table of one run."""

    def __init__(self, progress: Progress, folder: Path, live: Live) -> None:
        self._progress = progress
        self._folder = folder
        self._live = live
        self._shown = 0.0

    def show(self, *, at_once: bool = False) -> None:
        """Draw what is known now, not more often than somebody would look."""
        now = time.monotonic()
        if at_once or now - self._shown >= _REFRESH_SECONDS:
            self._shown = now
            told = read_now(self._folder)
            self._live.update(draw(self._progress, told, datetime.now()), refresh=True)


def draw(progress: Progress, now: Mapping[str, Any], clock: datetime) -> Group:
    """Return a run as a table and a line on what it does.

    Parameters
    ----------
    progress : Progress
        What the run has told.
    now : mapping
        Of ``now.json``; see `read_now`.
    clock : datetime
        The time, for the estimated end.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("round", "accuracy", "up", "down", "× fewer", "devices", "dropped"):
        table.add_column(name, justify="right")
    for event in progress.latest:
        fewer = fewer_so_far(event)
        accuracy = event["accuracy"]
        table.add_row(
            f"{event['round']}" + (f"/{progress.rounds}" if progress.rounds else ""),
            "–" if accuracy is None else f"{100 * accuracy:.1f} %",
            amount(event["total_bytes_up"]),
            amount(event["total_bytes_down"]),
            "–" if fewer is None else f"{fewer:.1f}",
            str(event["devices"]),
            str(event["dropped"]),
        )
    lines = [
        _line(progress, now, clock),
        *([progress.silence] * bool(progress.silence)),
    ]
    return Group(table, *(Text(line, overflow="ellipsis") for line in lines))


def _line(progress: Progress, now: Mapping[str, Any], clock: datetime) -> str:
    parts = [f"{progress.strategy}: {progress.doing}"]
    last = progress.latest[-1]["round"] if progress.latest else 0
    if now and now["round"] > last:
        waiting = now["asked"] - now["answered"]
        parts.append(f"{now['phase']}: {now['answered']} answered, {waiting} waiting")
        refused = now["refused"]
        if refused:
            most = max(refused, key=lambda reason: refused[reason])
            parts.append(f"{sum(refused.values())} dropped, as: {most[:_REASON]}")
    left = progress.seconds_left()
    if left and not progress.finished:
        end = clock + timedelta(seconds=left)
        parts.append(f"ends about {end:%H:%M} ({span(left)})")
    return "; ".join(parts)


def read_now(folder: Path) -> dict[str, Any]:
    """Return what ``now.json`` says, checked; empty if it says nothing usable."""
    try:
        told = json.loads((folder / NOW).read_text(encoding="utf-8"))
        return {
            "round": int(told["round"]),
            "phase": str(told["phase"])[:20],
            "asked": int(told["asked"]),
            "answered": int(told["answered"]),
            "refused": {str(k): int(v) for k, v in dict(told["refused"]).items()},
            "time": float(told["time"]),
        }
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return {}
