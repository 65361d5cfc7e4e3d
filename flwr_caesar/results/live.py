"""The files of a run, written while it goes on, for whoever watches it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from flwr_caesar.records import PhaseProgress

from .files import EVENTS, MODEL, write_now
from .results import Results

VARIABLE = "FLWR_CAESAR_RUN_FOLDER"
"""Where ``flwr-caesar run app=PATH`` tells a strategy's process to write its files."""


class LiveFolder:
    """Writes a strategy's results round by round.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: set[int] = set()
        path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def wanted(cls) -> LiveFolder | None:
        """Return the folder that this process's environment names, if it does."""
        place = os.environ.get(VARIABLE)
        return cls(Path(place)) if place else None

    def started(self, strategy: str, rounds: int) -> None:
        """Say that a run begins."""
        self._told.clear()
        self._event("started", strategy=strategy, rounds=rounds)

    def now(self, progress: PhaseProgress) -> None:
        """Say how far the phase is."""
        write_now(self.path, progress)

    def round(self, results: Results, server_round: int) -> None:
        """Write everything so far, and tell of a round if nobody has."""
        if server_round in self._told:
            return
        results.save_rows(self.path)
        for row in results.rows():
            if row["round"] == server_round:
                self._told.add(server_round)
                self._event("round", **row)

    def finished(
        self, results: Results, arrays: Mapping[str, np.ndarray[Any, Any]]
    ) -> None:
        """Write the final model and all the rest."""
        contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        save_file(contiguous, self.path / MODEL)
        results.save(self.path)
        self._event("finished")

    def failed(self, error: BaseException) -> None:
        """Tell why a run ended."""
        self._event("failed", reason=f"{type(error).__name__}: {error}")

    def _event(self, kind: str, **values: Any) -> None:
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **values}) + "\n")
