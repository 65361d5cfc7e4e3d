"""A run that is stopped from outside, as Flower allows from 1.43 on."""

import inspect

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from .app import App, Score
from .numpy_app import accuracy, initial_arrays, plain_app

MISSING = "Flower has no Strategy.start(should_stop=) before 1.43"


def stopped(
    grid: Grid, strategy: Strategy, initial: ArrayRecord, rounds: int, score: Score
) -> Result:
    scores: list[float] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        scores.append(score(arrays))
        return MetricRecord({"score": scores[-1]})

    def enough(*anything: object) -> bool:
        return scores[-1] > 0.85

    return strategy.start(
        grid, initial, num_rounds=rounds, evaluate_fn=evaluate, should_stop=enough
    )


def rounds_done(strategy: Strategy, result: Result) -> object:
    return len(result.evaluate_metrics_serverapp) < 7


def unsupported() -> str:
    takes = inspect.signature(Strategy.start).parameters
    return "" if "should_stop" in takes else MISSING


APP = App(
    "run that is stopped",
    plain_app,
    initial_arrays,
    accuracy,
    serve=stopped,
    observe=rounds_done,
    unsupported=unsupported(),
)
