"""The strategy inside: what it expects, and how it is called without changing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Strategy,
)

from flwr_caesar.flower import aggregate_metricrecords

from .nested import nested

MetricsFunction = Callable[[list[RecordDict], str], MetricRecord]

_MEAN_AGGREGATES = frozenset(
    cls.aggregate_train for cls in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
)
_TREES = (FedXgbBagging, FedXgbCyclic)
STEPS = (
    "configure_train",
    "configure_evaluate",
    "aggregate_train",
    "aggregate_evaluate",
)
"""What a loop of rounds calls."""


def require_strategy(strategy: object, outer: str) -> None:
    """Refuse what cannot be wrapped.

    Raises
    ------
    TypeError
        With what to do instead.
    """
    if not isinstance(strategy, Strategy):
        module = type(strategy).__module__
        legacy = module.startswith("flwr.server.")
        what = (
            "a strategy of Flower's legacy API (flwr.server.strategy)"
            if legacy
            else f"a {type(strategy).__name__}"
        )
        raise TypeError(
            f"{outer} wraps a strategy of flwr.serverapp.strategy, not {what}: build "
            f"it as {outer}(FedAvg(...)) with FedAvg from flwr.serverapp.strategy, and "
            "write the apps with ServerApp.main and ClientApp.train"
        )
    for inner in nested(strategy):
        if isinstance(inner, _TREES):
            raise TypeError(
                f"{type(inner).__name__} aggregates trees, not tensors: there is no "
                f"update to compress, so run it without {outer}"
            )


def aggregates_a_mean(strategy: Strategy) -> bool:
    """Whether a strategy's result depends on the weighted mean of replies only.

    True for FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi and subclasses that
    leave `aggregate_train` alone; any other strategy is given every update.
    """
    return type(strategy).aggregate_train in _MEAN_AGGREGATES


def leads_itself(strategy: Strategy) -> bool:
    """Whether a strategy has a loop of rounds of its own, in place of Flower's."""
    return type(strategy).start is not Strategy.start


def needs_weights(strategy: Strategy, method: str) -> bool:
    """Whether the method that aggregates is Flower's, which wants one MetricRecord."""
    return str(getattr(type(strategy), method).__module__).startswith("flwr.")


def looks_at_contents(strategy: Strategy) -> bool:
    """Whether a function of the user's aggregates the metrics of training."""
    chosen = getattr(strategy, "train_metrics_aggr_fn", aggregate_metricrecords)
    return chosen is not aggregate_metricrecords


def standing_in(strategy: Strategy, replaced: Mapping[str, Any]) -> Strategy:
    """Return an object that is the strategy, but for some attributes.

    It has the very attributes of the strategy, by reference, so whatever it learns the
    strategy has learned. What is replaced is replaced in its class only: the object
    that the user holds is never changed.

    Parameters
    ----------
    strategy : Strategy
        The user's.
    replaced : mapping of str to object
        Functions of the strategy's own methods' arguments, or values.
    """
    members = {
        # A property, as it goes before what the instance has of that name.
        name: property(partial(_constant, value))
        for name, value in replaced.items()
    }
    cls = type(type(strategy).__name__, (type(strategy),), members)
    stand_in: Strategy = object.__new__(cls)
    stand_in.__dict__ = vars(strategy)
    return stand_in


def _constant(value: Any, _: object) -> Any:
    return value


def snapshot(strategy: Strategy) -> Callable[[], None]:
    """Remember a strategy's state; the function returned puts it back.

    Flower's strategies replace their arrays. One of another class may change them in
    place, so its arrays are copied.
    """
    kept = []
    for inner in nested(strategy):
        in_place = not type(inner).__module__.startswith("flwr.")
        kept.append((inner, {k: _copied(v, in_place) for k, v in vars(inner).items()}))

    def put_back() -> None:
        for inner, attributes in kept:
            vars(inner).clear()
            vars(inner).update(attributes)

    return put_back


def _copied(value: Any, in_place: bool) -> Any:
    if type(value) is dict:
        return {key: _copied(item, in_place) for key, item in value.items()}
    if type(value) in (list, set):
        return type(value)(_copied(item, in_place) for item in value)
    if in_place and isinstance(value, np.ndarray):
        return value.copy()
    return value
