"""What all sinks share: figures of a phase, and that a sink ends no run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from logging import WARNING
from types import TracebackType
from typing import Self

from flwr_caesar.flower import log
from flwr_caesar.records import RoundRecord
from flwr_caesar.results.amounts import times_fewer


class Sink(ABC):
    """Tells of each phase and of each test; a failure is told in the log, once.

    Subclasses write what `write` is given. Telling must not end a run: whatever goes
    wrong there is caught. A sink that has something to finish is closed, best by a
    ``with`` around `start`, which also knows whether the run failed.
    """

    def __init__(self) -> None:
        self._up = self._down = self._raw = 0
        self._failed = self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def __call__(self, record: RoundRecord) -> None:
        """Take a phase."""
        self._up += record.bytes_up
        self._down += record.bytes_down
        self._raw += record.raw_bytes_up + record.raw_bytes_down
        waiting_mean, waiting_max = record.waiting
        figures = {
            "bytes_up": record.bytes_up,
            "bytes_down": record.bytes_down,
            "devices": len(record.devices),
            "dropped": len(record.dropped),
            "seconds": record.seconds,
            "seconds_server": record.seconds_server,
            "waiting_mean": waiting_mean,
            "waiting_max": waiting_max,
        }
        if record.virtual_seconds is not None:
            figures["virtual_seconds"] = record.virtual_seconds
        named = {f"{record.phase}/{name}": float(v) for name, v in figures.items()}
        named["total/bytes_up"] = float(self._up)
        named["total/bytes_down"] = float(self._down)
        fewer = times_fewer(self._raw, self._up + self._down)
        if fewer is not None:
            named["total/times_fewer"] = fewer
        self._safely(lambda: self.write(record.server_round, named))

    def on_metrics(self, server_round: int, metrics: Mapping[str, float]) -> None:
        """Take the accuracy and the loss of the model after a round."""
        named = {f"test/{name}": float(value) for name, value in metrics.items()}
        self._safely(lambda: self.write(server_round, named))

    @abstractmethod
    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        """Tell figures of a round, by names such as ``"train/bytes_up"``."""

    def end(self, *, failed: bool) -> None:  # noqa: B027
        """Finish what is told elsewhere; nothing by default.

        Parameters
        ----------
        failed : bool
            Whether an error ended the run.
        """

    def close(self, *, failed: bool = False) -> None:
        """Say that the run has ended; again does nothing.

        Parameters
        ----------
        failed : bool
            Whether an error ended it.
        """
        if self._closed:
            return
        self._closed = True
        self._safely(lambda: self.end(failed=failed))

    def _safely(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            if not self._failed:
                name = type(self).__name__
                log(WARNING, "flwr-caesar: %s cannot write: %s", name, error)
            self._failed = True
