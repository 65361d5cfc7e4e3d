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

# How much lower a score may be where a method leaves out much of what it is given, and
# a few rounds do not make up for it: 99 % of an update, half of a model.
LAGS = {"CorrelationAware": 0.1, "MagnitudePruning": 0.1}


def allowed(app: App, name: str) -> float:
    """Return by how much an app's score may be lower under a strategy."""
    return app.lags.get(name, max(app.tolerance, LAGS.get(name, 0.0)))


def applies(app: App, name: str) -> bool:
    """Whether an app can be run under a strategy at all.

    FedComLoc asks for a line in the training, which only some apps have.
    """
    return name != "FedComLoc" or app.fedcomloc_lr > 0


def wrapped(app: App, name: str, inner: Strategy) -> Strategy:
    """Wrap an app's strategy as its authors would."""
    options = dict(app.options.get(name, {}))
    if name == "FedComLoc":
        options["lr"] = app.fedcomloc_lr
    return OURS[name](inner, **options)
