"""A FedAvg and a method whose calls are listened to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.strategies import ServerMethod

from .world import in_order

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Listener(Protocol):
    """Who is told what the inner strategy sees and does."""

    def round_begins(self, arrays: ArrayRecord) -> None:
        """Learn which model a round begins with."""

    def evaluation_begins(self) -> None:
        """Learn that training is over."""

    def given(self, replies: Sequence[Message], *, every: bool) -> None:
        """Learn what the strategy is to aggregate; `every`: each reply, not a mean."""

    def made(self, arrays: ArrayRecord | None) -> None:
        """Learn what it made of that; before anything is committed."""

    def finished(self, model: Arrays) -> None:
        """Learn what the method made of that, if it goes on with another model."""

    def evaluated(self) -> None:
        """Learn that metrics are aggregated; before anything is committed."""


class TakesEveryReply(FedAvg):
    """FedAvg that is given each update, as robust strategies are, not their mean."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See `FedAvg.aggregate_train`."""
        return super().aggregate_train(server_round, replies)


def listened_to(listener: Listener, *, every: bool, order: random.Random) -> FedAvg:
    """Return a FedAvg that tells what it sees and does.

    On the object, not by a subclass: whether a strategy takes a mean is told by its
    class.

    Parameters
    ----------
    listener : Listener
        Whom it tells.
    every : bool
        Whether it is given each reply instead of their mean.
    order : random.Random
        Draws the order in which it asks the nodes.
    """
    inner = (TakesEveryReply if every else FedAvg)(
        min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1
    )
    train, evaluate = inner.configure_train, inner.configure_evaluate
    aggregate_train = inner.aggregate_train
    aggregate_evaluate = inner.aggregate_evaluate

    def configure_train(number: int, arrays: ArrayRecord, *rest: Any) -> Any:
        listener.round_begins(arrays)
        return in_order(train(number, arrays, *rest), order)

    def configure_evaluate(number: int, arrays: ArrayRecord, *rest: Any) -> Any:
        listener.evaluation_begins()
        return in_order(evaluate(number, arrays, *rest), order)

    def aggregate(number: int, replies: Sequence[Message]) -> Any:
        listener.given(replies, every=every)
        arrays, metrics = aggregate_train(number, replies)
        listener.made(arrays)
        return arrays, metrics

    def aggregate_metrics(number: int, replies: Sequence[Message]) -> Any:
        listener.evaluated()
        return aggregate_evaluate(number, replies)

    heard: dict[str, Callable[..., Any]] = {
        "configure_train": configure_train,
        "configure_evaluate": configure_evaluate,
        "aggregate_train": aggregate,
        "aggregate_evaluate": aggregate_metrics,
    }
    for name, call in heard.items():
        setattr(inner, name, call)
    return inner


def listen_to_finish(listener: Listener, method: ServerMethod) -> None:
    """Let a method tell with which model it goes on, if it is not the one made."""
    finish = method.finish

    def heard(made: Arrays) -> Arrays:
        model = finish(made)
        if any(model[name] is not array for name, array in made.items()):
            listener.finished(model)
        return model

    vars(method)["finish"] = heard
