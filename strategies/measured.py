"""What a strategy's rounds cost, for whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, MetricRecord

from flwr_caesar.results.results import Results

if TYPE_CHECKING:
    from flwr_caesar.records import RoundRecord

    from .exchange import Exchange
    from .recorder import Recorder

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class Measured:
    """The part of a strategy that tells what was sent and how good the model was."""

    _recorder: Recorder
    _exchange: Exchange
    _metrics: dict[int, dict[str, float]]

    @property
    def history(self) -> list[RoundRecord]:
        """Every phase so far."""
        return self._recorder.history

    def report(self) -> str:
        """Return what the rounds cost, as a table to print.

        Accuracy is there if `start` was given an `evaluate_fn`, or devices evaluate,
        and one of their metrics is named ``"accuracy"``.
        """
        return self._results().report()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what the rounds cost into a folder.

        ``rounds.csv``, ``devices.csv``, ``summary.json``, ``report.md``, and a picture
        if matplotlib is installed; ``flwr-caesar report`` and ``watch`` read it.

        Parameters
        ----------
        folder : path
            Made if it is not there; these files of it are replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._results().save(Path(folder))

    def _results(self) -> Results:
        layout = self._exchange.layout
        parameters = layout.num_params if layout else 0
        return Results(
            type(self).__name__, self.history, self._metrics, parameters=parameters
        )

    def _noting(self, evaluate: Evaluate, before: int) -> Evaluate:
        """Return an evaluate function whose accuracy and loss are noted by round."""

        def tested(done: int, arrays: ArrayRecord) -> MetricRecord | None:
            metrics = evaluate(before + done, arrays)
            self._metrics.pop(before + done, None)  # what devices reported of it
            self._note_metrics(before + done, metrics)
            return metrics

        return tested

    def _note_metrics(
        self, server_round: int, metrics: Mapping[str, object] | None
    ) -> None:
        """Note a round's accuracy and loss, where they are numbers."""
        for name in ("accuracy", "loss"):
            value = (metrics or {}).get(name)
            if isinstance(value, (int, float)):
                self._metrics.setdefault(server_round, {})[name] = float(value)
