"""What an app of this folder is, and what it reads as: the two halves of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

Wrap = Callable[[Strategy], Strategy]
Score = Callable[[ArrayRecord], float]


def fed_avg(wrap: Wrap) -> Strategy:
    """FedAvg without evaluation on devices, and one of ours around it."""
    return wrap(FedAvg(fraction_evaluate=0.0))


def start(
    grid: Grid, strategy: Strategy, initial: ArrayRecord, rounds: int, score: Score
) -> Result:
    """Start a strategy with an evaluation on the server, as most apps do."""
    return strategy.start(
        grid,
        initial,
        num_rounds=rounds,
        evaluate_fn=lambda _, arrays: MetricRecord({"score": score(arrays)}),
    )


def observe_nothing(strategy: Strategy, result: Result) -> object:
    """Return nothing to compare."""
    return None


@dataclass(frozen=True, eq=False)
class App:
    """A Flower app, and what must be true of it.

    Parameters
    ----------
    title : str
        The habit, in a few words.
    client_app : callable
        Given the mods, `[]` under plain Flower, returns the ClientApp.
    initial_arrays : callable
        Given a seed, returns the first model.
    score : callable
        Of a model: accuracy, or the part of the way to the goal. Higher is better.
    strategy : callable
        Given how to wrap a strategy, returns what the ServerApp starts.
    serve : callable
        The ServerApp's main, by default `start`.
    observe : callable
        Of strategy and result, what must be the same as under plain Flower.
    rounds, nodes : int
        How long, and how many devices.
    seeds : int
        How many runs of each are averaged; they begin alike, so one is enough where
        plain Flower's own noise is known (`tests.apps.noise`).
    tested : int
        Examples that the score is the accuracy on; 0: it is computed without noise.
    short : mapping of str to str
        By strategy, or ``"*"``, why its method cannot be as good as plain Flower in
        these rounds. The table says so.
    refused : mapping of str to str
        By strategy, or ``"*"``, a pattern of the sentence with which it is refused;
        empty where it is not.
    fails : bool
        Whether a device fails in it, under plain Flower too.
    needs : tuple of str
        Packages that are not there in every environment.
    unsupported : str
        Why the app cannot run on the Flower that is installed; empty if it can.
    like : App, optional
        The app that plain Flower runs instead, if it cannot run this one.
    fedcomloc_lr : float
        Step size, if the app's training has FedComLoc's line.
    options : mapping
        By strategy, what its constructor is given besides; if there are any, the app
        is for these strategies only.
    """

    title: str
    client_app: Callable[[list[Mod]], ClientApp]
    initial_arrays: Callable[[int], ArrayRecord]
    score: Score
    strategy: Callable[[Wrap], Strategy] = fed_avg
    serve: Callable[[Grid, Strategy, ArrayRecord, int, Score], Result] = start
    observe: Callable[[Strategy, Result], object] = observe_nothing
    rounds: int = 3
    nodes: int = 3
    seeds: int = 1
    tested: int = 397
    short: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    fails: bool = False
    needs: tuple[str, ...] = ()
    unsupported: str = ""
    like: App | None = None
    fedcomloc_lr: float = 0.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def refusal(self, strategy: str) -> str:
        """Return the pattern of the sentence that refuses the app, or nothing."""
        return self.refused.get(strategy, self.refused.get("*", ""))


def reply_to(
    msg: Message,
    arrays: ArrayRecord | Mapping[str, Any],
    *,
    examples: int,
    **metrics: float,
) -> Message:
    """Return the reply of a quickstart: "arrays" and "metrics"."""
    if not isinstance(arrays, ArrayRecord):
        arrays = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    counted = MetricRecord({"num-examples": examples, **metrics})
    return Message(RecordDict({"arrays": arrays, "metrics": counted}), reply_to=msg)


def partition_of(context: Context) -> tuple[int, int]:
    """Return which partition a node has, and of how many."""
    config = context.node_config
    return int(config["partition-id"]), int(config["num-partitions"])
