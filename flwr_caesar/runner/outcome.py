"""Runs that ended, and which of them differ by chance only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from flwr_caesar.results.amounts import MB
from flwr_caesar.results.files import DEVICES, ROUNDS, SUMMARY
from flwr_caesar.runner.text import whole_rows


@dataclass(frozen=True)
class Outcome:
    """A run that ended.

    Parameters
    ----------
    summary : dict or None
        Of ``summary.json``; None if the run failed.
    overrides : tuple of str
        What was set for it, as on the command line.
    rounds, devices : tuple of dict
        Rows of ``rounds.csv`` and ``devices.csv``, numbers as text.
    folder : str
        Its folder's name.
    """

    summary: dict[str, Any] | None
    overrides: tuple[str, ...] = ()
    rounds: tuple[dict[str, str], ...] = field(default=(), repr=False)
    devices: tuple[dict[str, str], ...] = field(default=(), repr=False)
    folder: str = ""

    @classmethod
    def read(cls, folder: Path, overrides: Sequence[str] = ()) -> Outcome:
        """Read a run folder; one without a summary is a run that failed."""
        summary = folder / SUMMARY
        if not summary.is_file():
            return cls(None, tuple(overrides), folder=folder.name)
        return cls(
            json.loads(summary.read_text("utf-8")),
            tuple(overrides),
            tuple(whole_rows(folder / ROUNDS)),
            tuple(whole_rows(folder / DEVICES)),
            folder.name,
        )

    @property
    def name(self) -> str:
        """The strategy's name."""
        chosen = [o for o in self.overrides if o.startswith("strategy=")]
        if chosen:
            return chosen[-1].partition("=")[2]
        return "run" if self.summary is None else str(self.summary["strategy"])

    @property
    def is_virtual(self) -> bool:
        """Whether its time is that of a profile's clock."""
        return self.summary is not None and self.summary.get("clock") == "virtual"

    @property
    def target_accuracy(self) -> float:
        """The accuracy to be reached; 0 if there was none."""
        return float(self._target.get("accuracy", 0.0))

    @property
    def target_round(self) -> int | None:
        """The round in which it was reached."""
        return self._target.get("round")

    @property
    def _target(self) -> dict[str, Any]:
        return (self.summary or {}).get("target") or {}

    @property
    def settings(self) -> tuple[str, ...]:
        """What was set apart from the seed: runs that share it differ by chance."""
        return tuple(o for o in self.overrides if not o.startswith("seed="))


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but the seed.

    Parameters
    ----------
    runs : tuple of Outcome
        Those that failed are left out.
    failed : int
        How many did.
    settings : tuple of str
        What was set for all of them.
    name : str
        The strategy's name.
    """

    runs: tuple[Outcome, ...]
    failed: int
    settings: tuple[str, ...]
    name: str

    @property
    def conditions(self) -> frozenset[str]:
        """What was set apart from the strategy: cells compare where this is equal."""
        return frozenset(o for o in self.settings if not o.startswith("strategy"))

    def values(self, *keys: str) -> list[float]:
        """Return one figure of each run's summary; none if a run has none."""
        found = []
        for run in self.runs:
            value: Any = run.summary
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                found.append(float(value))
        return found if len(found) == len(self.runs) else []

    def mean(self, *keys: str) -> float | None:
        """Return the mean of a figure over the runs; None if a run has none."""
        values = self.values(*keys)
        return fmean(values) if values else None

    @cached_property
    def reached(self) -> int:
        """In how many runs the target accuracy was reached."""
        return sum(run.target_round is not None for run in self.runs)

    @property
    def megabytes_to_target(self) -> float | None:
        """Up and down until the target, mean over the runs; None if one missed it."""
        up = self.mean("target", "bytes_up")
        down = self.mean("target", "bytes_down")
        return None if up is None or down is None else (up + down) / MB

    def curve(self, *columns: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a sum of columns of ``rounds.csv``, shape (runs, rounds).

        Round 0 is left out. Rounds that not every run has are left out too.
        """
        curves = [
            [
                sum(float(row[c]) for c in columns)
                for row in run.rounds
                if row["round"] != "0"
            ]
            for run in self.runs
        ]
        shortest = min(map(len, curves), default=0)
        return np.array([curve[:shortest] for curve in curves])


def gather(outcomes: Sequence[Outcome]) -> list[Cell]:
    """Put runs together that differ only in their seed, in the order of the first."""
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.settings, []).append(outcome)
    return [
        Cell(
            tuple(run for run in group if run.summary is not None),
            sum(run.summary is None for run in group),
            settings,
            group[0].name,
        )
        for settings, group in groups.items()
    ]


def labels(cells: Sequence[Cell]) -> list[str]:
    """Name cells by strategy and by the settings that not all of them share."""
    common = frozenset.intersection(*(frozenset(cell.settings) for cell in cells))
    names = []
    for cell in cells:
        own = [
            o.removeprefix("strategy.").removeprefix("+")
            for o in cell.settings
            if o not in common and not o.startswith("strategy=")
        ]
        names.append(" ".join([cell.name, *own]))
    return names


def named(cells: Sequence[Cell]) -> Iterable[tuple[str, Cell]]:
    """Return each cell with its label; see `labels`."""
    return zip(labels(cells), cells, strict=True) if cells else ()
