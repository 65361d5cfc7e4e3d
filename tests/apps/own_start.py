"""A strategy with methods and a `start` of its own, as in advanced-pytorch."""

from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap
from .numpy_app import accuracy, initial_arrays, plain_app


class Saving(FedAvg):
    """Keeps what it would write to a folder, after a run."""

    folder = ""
    saved: object = None

    def set_folder(self, folder: str) -> None:
        self.folder = folder

    def start(
        self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any
    ) -> Result:
        result = super().start(grid, initial_arrays, *args, **kwargs)
        self.saved = f"{self.folder}/{len(result.evaluate_metrics_serverapp)}"
        return result


class Stopping(FedAvg):
    """Runs a loop of its own, which ends when the model is good enough."""

    saved: object = None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        result, arrays = Result(), initial_arrays
        for current in range(1, num_rounds + 1):
            messages = self.configure_train(current, arrays, ConfigRecord(), grid)
            replies = grid.send_and_receive(messages, timeout=timeout)
            new, _ = self.aggregate_train(current, replies)
            arrays = arrays if new is None else new
            result.evaluate_metrics_serverapp[current] = evaluate_fn(current, arrays)
            if result.evaluate_metrics_serverapp[current]["score"] > 0.8:
                break
        result.arrays = arrays
        self.saved = current < num_rounds
        return result


def saving(wrap: Wrap) -> Strategy:
    strategy = wrap(Saving(fraction_evaluate=0.0))
    strategy.set_folder("models")
    return strategy


def stopping(wrap: Wrap) -> Strategy:
    return wrap(Stopping(fraction_evaluate=0.0))


def saved(strategy: Strategy, result: Result) -> object:
    return strategy.saved


APPS = [
    App(
        title,
        plain_app,
        initial_arrays,
        accuracy,
        made_by,
        observe=saved,
    )
    for title, made_by in {
        "strategy with methods and its own `start`": saving,
        "strategy with a loop of its own": stopping,
    }.items()
]
