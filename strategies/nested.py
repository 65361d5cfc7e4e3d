"""Strategies inside strategies, as Flower's differential privacy nests them."""

from __future__ import annotations

from collections.abc import Iterator

from flwr.serverapp.strategy import Strategy


def nested(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and those inside it, from the outermost on."""
    inner: object = strategy
    while isinstance(inner, Strategy):
        yield inner
        inner = getattr(inner, "strategy", None)


def weight_key(strategy: Strategy) -> str:
    """Return the metric by which a strategy, or one inside it, weighs replies."""
    keys = (getattr(inner, "weighted_by_key", "") for inner in nested(strategy))
    return next(filter(None, keys), "num-examples")
