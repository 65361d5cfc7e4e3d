"""The configuration as the reference app receives it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def load_spec(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the configuration out of a Flower run configuration.

    Parameters
    ----------
    run_config : mapping
        ``spec`` is a resolved configuration in JSON. If it is empty, ``overrides``, a
        string of settings separated by spaces, is composed with the packaged one.

    Raises
    ------
    ConfigError
        If the overrides name no known key or choice, or a value is out of range.
    """
    spec: dict[str, Any] = json.loads(
        str(run_config["spec"]) or _compose(str(run_config["overrides"]))
    )
    return spec


def weight_format(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights' format as arguments of `clients.training`.

    A specification from before there was a choice means float32.
    """
    train = spec["train"]
    return {
        "weight_bits": train.get("weight_bits"),
        "weight_levels": train.get("weight_levels", "uniform"),
    }


@lru_cache(maxsize=1)
def _compose(overrides: str) -> str:
    from flwr_caesar.runner.config import check_values, compose

    spec = compose(overrides.split())
    check_values(spec)
    return json.dumps(spec)
