"""Live progress: what a run has told so far, as lines or a table for a person."""

from __future__ import annotations

import contextlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr_caesar.results.amounts import amount, times_fewer

_LAST = 5  # rounds whose mean says how long the others will take


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
    fewer = fewer_so_far(event)
    saved = "" if fewer is None else f"  {fewer:5.1f} × fewer"
    return (
        f"{strategy:<8}  round {event['round']:>{width}}{of}{accuracy}"
        f"  up {amount(event['total_bytes_up']):>8}"
        f"  down {amount(event['total_bytes_down']):>8}{saved}"
        f"  {event['seconds']:6.1f} s{dropped}"
    )


def fewer_so_far(event: Mapping[str, Any]) -> float | None:
    """Return how many times fewer bytes were sent than uncompressed, so far."""
    sent = event["total_bytes_up"] + event["total_bytes_down"]
    return times_fewer(event.get("total_raw_bytes") or 0, sent)


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
    """Follows a run; prints a line for each round, and one while nothing happens.

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
    rounds : int or None
        How many there will be.
    latest : deque of mapping
        The last events of rounds.
    doing : str
        What it does now.
    silence : str
        What was said last while nothing happened; empty once something did.
    """

    QUIET_SECONDS = 30.0

    def __init__(
        self, strategy: str, rounds: int | None, say: Callable[[str], None]
    ) -> None:
        self.strategy = strategy
        self.rounds = rounds
        self.latest: deque[Mapping[str, Any]] = deque(maxlen=12)
        self.doing = "starting"
        self.silence = ""
        self._say = say
        self._last = 0.0
        self._patience = self.QUIET_SECONDS
        self.finished = False
        self.failure = ""

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Show an event; `now` in seconds on any clock that `quiet` shares."""
        self._last, self._patience = now, self.QUIET_SECONDS
        self.silence = ""
        if event["event"] == "round":
            of = f"/{self.rounds}" if self.rounds else ""
            self.doing = f"in round {event['round'] + 1}{of}"
            if self.rounds and event["round"] >= self.rounds:
                self.doing = "finishing"
            self.latest.append(event)
            self._say(round_line(self.strategy, self.rounds, event))
        elif event["event"] == "started":
            self.rounds = event["rounds"]
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
        self.silence = (
            f"{self.strategy:<8}  {self.doing}, {waited:.0f} s without news; "
            f"Flower says: {latest()}"
        )
        self._say(self.silence)

    def seconds_left(self) -> float | None:
        """Return how long the rounds that are left will take; None if unknown."""
        known = list(self.latest)[-_LAST - 1 :]
        if not self.rounds or len(known) < 2:
            return None
        each = (known[-1]["seconds"] - known[0]["seconds"]) / (len(known) - 1)
        return float(max(self.rounds - known[-1]["round"], 0) * each)
