"""Live progress: the run's events as lines for a person."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr_caesar.results.amounts import amount


def round_line(strategy: str, rounds: int | None, event: Mapping[str, Any]) -> str:
    """Say in one line how a round went.

    Parameters
    ----------
    strategy : str
        Its name.
    rounds : int, optional
        How many there will be, if that is known.
    event : mapping
        A ``"round"`` event; see `flwr_caesar.runner.folder.RunFolder`.
    """
    width = len(str(rounds or ""))
    of = f"/{rounds}" if rounds else ""
    known = event["accuracy"] is not None
    accuracy = f"  accuracy {100 * event['accuracy']:5.1f} %" if known else ""
    dropped = f"  {event['dropped']} dropped" if event["dropped"] else ""
    return (
        f"{strategy:<8}  round {event['round']:>{width}}{of}{accuracy}"
        f"  up {amount(event['total_bytes_up']):>8}"
        f"  down {amount(event['total_bytes_down']):>8}"
        f"  {event['seconds']:6.1f} s{dropped}"
    )


class Tail:
    """Reads the whole lines that were added to a file since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the new events; none if the file is not there."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, io.SEEK_END) < self._offset:
                    self._offset = 0  # begun anew
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].split(b"\n"):
            with contextlib.suppress(ValueError):  # torn by a full disk or a power cut
                yield json.loads(line)


class Progress:
    """Prints a line for each round, and one now and then while nothing happens.

    Parameters
    ----------
    strategy, rounds
        See `round_line`.
    say : callable
        Called with each line.

    Attributes
    ----------
    finished : bool
        Whether the run has written all its files.
    failure : str
        Why it failed, if it said so.
    """

    QUIET_SECONDS = 30.0

    def __init__(
        self, strategy: str, rounds: int | None, say: Callable[[str], None]
    ) -> None:
        self._strategy = strategy
        self._rounds = rounds
        self._say = say
        self._last = 0.0
        self._patience = self.QUIET_SECONDS
        self._doing = "starting"
        self.finished = False
        self.failure = ""

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Show an event; `now` in seconds on any clock that `quiet` shares."""
        self._last, self._patience = now, self.QUIET_SECONDS
        if event["event"] == "round":
            of = f"/{self._rounds}" if self._rounds else ""
            self._doing = f"in round {event['round'] + 1}{of}"
            if self._rounds and event["round"] >= self._rounds:
                self._doing = "finishing"
            self._say(round_line(self._strategy, self._rounds, event))
        elif event["event"] == "started":
            self._rounds = event["rounds"]
        elif event["event"] == "finished":
            self.finished = True
        elif event["event"] == "failed":
            self.failure = event["reason"]

    def quiet(self, now: float, latest: Callable[[], str]) -> None:
        """Say that it still goes on, if nothing was said for long.

        Parameters
        ----------
        now : float
            Seconds.
        latest : callable
            Returns the last line of Flower's log, which tells what it waits for.
        """
        self._last = self._last or now
        waited = now - self._last
        if waited < self._patience:
            return
        self._patience *= 2
        self._say(
            f"{self._strategy:<8}  {self._doing}, {waited:.0f} s without news; "
            f"Flower says: {latest()}"
        )
