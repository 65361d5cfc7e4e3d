"""TensorBoard: ``pip install 'flwr-caesar[tensorboard]'``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from .sink import Sink


class TensorBoard(Sink):
    """Writes scalars that ``tensorboard --logdir FOLDER`` shows.

    Parameters
    ----------
    folder : path
        Made if it is not there. One for each run.

    Raises
    ------
    ImportError
        Without tensorboard.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        # Not torch's writer: a server may have no torch.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(os.fspath(folder))

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        """See `Sink.write`."""
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in figures.items()
        ]
        self._writer.add_event(
            self._event(
                wall_time=time.time(),
                step=server_round,
                summary=self._summary(value=values),
            )
        )
        self._writer.flush()

    def end(self, *, failed: bool) -> None:
        """See `Sink.end`."""
        self._writer.close()
