"""What a strategy's rounds cost, for whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from flwr_caesar.results.live import LiveFolder
from flwr_caesar.results.results import Results
from flwr_caesar.transport import record_to_arrays, rounded_record

from .metrics import quality

if TYPE_CHECKING:
    from flwr_caesar.records import RoundRecord

    from .exchange import Exchange
    from .recorder import Recorder
    from .resumed import FirstModel

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class Measured:
    """The part of a strategy that tells what was sent and how good the model was."""

    _recorder: Recorder
    _exchange: Exchange
    _first: FirstModel
    _metrics: dict[int, dict[str, float]]
    _live: LiveFolder | None = None
    _tested = False

    @property
    def history(self) -> list[RoundRecord]:
        """Every phase so far."""
        return self._recorder.history

    def report(self) -> str:
        """Return what the rounds cost, as a table to print.

        Accuracy is there if `start` was given an `evaluate_fn`, or devices evaluate,
        and one of their metrics is named ``"accuracy"``, ``"acc"``, or either after a
        word such as ``"eval_"`` or ``"test_"``.
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
            type(self).__name__,
            self.history,
            self._metrics,
            parameters=parameters,
            notes=tuple(self._exchange.notes()),
        )

    def _as_sent(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return a model in the precision in which devices have it."""
        layout = self._exchange.layout
        return arrays if layout is None else rounded_record(arrays, layout)

    def _noting(self, evaluate: Evaluate, before: int) -> Evaluate:
        """Return an evaluate function whose accuracy and loss are noted by round."""

        def tested(done: int, arrays: ArrayRecord) -> MetricRecord | None:
            shown = self._as_sent(self._first.shown(arrays))
            metrics = evaluate(before + done, shown)
            self._metrics.pop(before + done, None)  # what devices reported of it
            self._note_metrics(before + done, metrics)
            self._tell(before + done)
            return metrics

        return tested

    @contextmanager
    def _watched(
        self, num_rounds: int, evaluate: Evaluate | None
    ) -> Iterator[Callable[[Result], None]]:
        """Write the run's files as it goes on, if this process is asked to.

        Yields what to call with the result.
        """
        live = self._live = LiveFolder.wanted()
        self._tested = evaluate is not None
        if live is None:
            yield lambda result: None
            return

        def done(result: Result) -> None:
            if self.history:  # of an inner strategy that evaluates nothing
                self._tell(self.history[-1].server_round)
            live.finished(self._results(), record_to_arrays(result.arrays))

        live.started(type(self).__name__, num_rounds)
        asked, self._recorder.on_progress = self._recorder.on_progress, live.now
        try:
            yield done
        except Exception as error:
            live.failed(error)
            raise
        finally:
            self._live, self._recorder.on_progress = None, asked

    def _tell(self, server_round: int, *, evaluated: bool = True) -> None:
        """Tell who watches that a round is over; first it is evaluated, if it will."""
        if self._live is not None and (evaluated or not self._tested):
            self._live.round(self._results(), server_round)

    def _note_metrics(
        self, server_round: int, metrics: Mapping[str, object] | None
    ) -> None:
        """Note a round's accuracy and loss, where they are numbers."""
        if found := quality(metrics or {}):
            self._metrics.setdefault(server_round, {}).update(found)
        if server_round in self._metrics:
            self._recorder.tested(server_round, self._metrics[server_round])
