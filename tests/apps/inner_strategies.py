"""Every strategy of Flower's that takes a model, with another optimiser or a vote."""

from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)

from .app import App, Wrap
from .numpy_app import accuracy, initial_arrays, plain_app

ADAPTIVE = {"eta": 0.1, "tau": 0.1}
INNER: dict[Callable[..., Strategy], dict[str, Any]] = {
    FedAdam: ADAPTIVE,
    FedYogi: ADAPTIVE,
    FedAdagrad: ADAPTIVE,
    FedAvgM: {"server_learning_rate": 0.5, "server_momentum": 0.5},
    FedProx: {"proximal_mu": 0.1},
    FedMedian: {},
    FedTrimmedAvg: {"beta": 0.25},
    Krum: {"num_malicious_nodes": 1},
    MultiKrum: {"num_malicious_nodes": 1, "num_nodes_to_select": 2},
}


def made_by(
    inner: Callable[..., Strategy], options: dict[str, Any]
) -> Callable[[Wrap], Strategy]:
    return lambda wrap: wrap(inner(fraction_evaluate=0.0, **options))


APPS = [
    App(
        f"{inner.__name__} inside",
        plain_app,
        initial_arrays,
        accuracy,
        made_by(inner, options),
        rounds=3,
        nodes=4,
    )
    for inner, options in INNER.items()
]
