"""Every strategy of ours with its defaults, by the name that the table gives it."""

from __future__ import annotations

from collections.abc import Callable

from flwr.serverapp.strategy import Strategy

from flwr_caesar.strategies import (
    Caesar,
    CorrelationAware,
    ErrorBounded,
    FedComLoc,
    MagnitudePruning,
    TopK,
    Uncompressed,
)

from .app import App

PLAIN = "Flower"

OURS: dict[str, Callable[..., Strategy]] = {
    "Caesar": Caesar,
    "Caesar paper": lambda inner, **kw: Caesar(inner, codec="paper", **kw),
    "TopK": TopK,
    "ErrorBounded": ErrorBounded,
    "CorrelationAware": CorrelationAware,
    "MagnitudePruning": MagnitudePruning,
    "FedComLoc": FedComLoc,
    "Uncompressed": Uncompressed,
}


def applies(app: App, name: str) -> bool:
    """Whether an app can be run under a strategy at all.

    FedComLoc asks for a line in the training, which only some apps have. Options of a
    strategy's own make another app for those that have them.
    """
    if app.options and name not in app.options:
        return False
    return name != "FedComLoc" or app.fedcomloc_lr > 0


def wrapped(app: App, name: str, inner: Strategy) -> Strategy:
    """Wrap an app's strategy as its authors would."""
    options = dict(app.options.get(name, {}))
    if name == "FedComLoc":
        options["lr"] = app.fedcomloc_lr
    return OURS[name](inner, **options)
