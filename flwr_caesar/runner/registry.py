"""From the ``strategy`` group of a configuration to a strategy object."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flwr_caesar.records import RoundRecord
from flwr_caesar.tasks.errors import ConfigError

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

# Name in the configuration: class in `flwr_caesar.strategies`. The other keys of the
# group are its keyword arguments.
STRATEGIES = {
    "fedavg": "Uncompressed",
    "topk": "TopK",
}


def build_strategy(
    spec: Mapping[str, Any], *, on_record: Callable[[RoundRecord], None]
) -> Strategy:
    """Build what ``strategy`` names, around Flower's FedAvg.

    Parameters
    ----------
    spec : mapping
        A whole configuration, resolved.
    on_record : callable
        Called with the record of each phase of each round.

    Raises
    ------
    ConfigError
        If there is no such strategy, or it refuses a setting.
    """
    settings = dict(spec["strategy"])
    name = settings.pop("name")
    if name not in STRATEGIES:
        raise ConfigError(
            "strategy.name", f"no strategy {name!r}; there are: {', '.join(STRATEGIES)}"
        )
    factory = getattr(import_module("flwr_caesar.strategies"), STRATEGIES[name])
    known = set(inspect.signature(factory).parameters) - {"strategy", "on_record"}
    for key in settings:
        if key not in known:
            choices = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"strategy.{key}", f"{name} has no such setting; it has: {choices}"
            )
    try:
        strategy: Strategy = factory(_fedavg(spec), **settings, on_record=on_record)
    except (TypeError, ValueError) as error:
        named = [key for key in settings if re.search(rf"\b{key}\b", str(error))]
        key = f"strategy.{named[0]}" if named else "strategy"
        raise ConfigError(key, str(error)) from None
    return strategy


def _fedavg(spec: Mapping[str, Any]) -> Strategy:
    from flwr.serverapp.strategy import FedAvg

    federation = spec["federation"]
    return FedAvg(
        fraction_train=federation["fraction_train"],
        fraction_evaluate=federation["fraction_evaluate"],
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=federation["num_supernodes"],
    )
