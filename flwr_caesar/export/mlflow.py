"""MLflow: ``pip install 'flwr-caesar[mlflow]'``."""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from typing import Any

from .sink import Sink


class MLflow(Sink):
    """Writes metrics and settings to an MLflow tracking server, or to a file.

    Figures are sent by a thread of MLflow's own, so that a slow server holds up no
    round.

    Parameters
    ----------
    experiment : str
        Made if it is not there.
    tracking_uri : str, optional
        ``"http://host:5000"``, or ``"sqlite:///mlflow.db"`` without a server. By
        default MLflow's own, the variable ``MLFLOW_TRACKING_URI``.
    name : str, optional
        The run's; by default MLflow makes one up.
    settings : mapping, optional
        What the run was set to; shown beside it, each value as text.

    Attributes
    ----------
    run_id : str
        MLflow's.

    Raises
    ------
    ImportError
        Without mlflow.
    mlflow.exceptions.MlflowException
        If the experiment or the run cannot be made.
    """

    def __init__(
        self,
        experiment: str = "flwr-caesar",
        *,
        tracking_uri: str | None = None,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self._metric = Metric
        self._client = MlflowClient(tracking_uri)
        found = self._client.get_experiment_by_name(experiment)
        number = (
            self._client.create_experiment(experiment)
            if found is None
            else found.experiment_id
        )
        self.run_id: str = self._client.create_run(number, run_name=name).info.run_id
        for key, value in (settings or {}).items():
            self._client.log_param(self.run_id, key, value)
        self._sent: list[Any] = []
        # As MLflow does with runs that nobody ends.
        atexit.register(self.close)

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        """See `Sink.write`."""
        now = round(time.time() * 1000)
        metrics = [
            self._metric(name, value, now, server_round)
            for name, value in figures.items()
        ]
        sent = self._client.log_batch(self.run_id, metrics, synchronous=False)
        self._sent.append(sent)

    def end(self, *, failed: bool) -> None:
        """See `Sink.end`."""
        atexit.unregister(self.close)
        try:
            for sent in self._sent:
                sent.wait()
        finally:
            status = "FAILED" if failed else "FINISHED"
            self._client.set_terminated(self.run_id, status)
