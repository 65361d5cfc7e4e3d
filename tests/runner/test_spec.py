"""The app receives the same configuration from the runner and from plain Flower."""

from __future__ import annotations

import json

import pytest

from flwr_caesar.runner.config import compose
from flwr_caesar.runner.spec import load_spec, weight_format
from flwr_caesar.tasks.errors import ConfigError


def test_overrides_and_spec_agree() -> None:
    overrides = "rounds=3 strategy=fedavg"
    spec = compose(overrides.split())
    assert load_spec({"spec": "", "overrides": overrides}) == spec
    assert load_spec({"spec": json.dumps(spec), "overrides": "ignored=1"}) == spec


def test_a_bad_override_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds"):
        load_spec({"spec": "", "overrides": "rounds=0"})


def test_the_weights_format_is_for_training_and_older_runs_have_none() -> None:
    spec = compose(["train.weight_bits=4", "train.weight_levels=power_of_two"])
    found = {"weight_bits": 4, "weight_levels": "power_of_two"}
    assert weight_format(spec) == found
    older = {"train": {"lr": 0.1}}
    assert weight_format(older) == {"weight_bits": None, "weight_levels": "uniform"}
    assert weight_format(compose([])) == weight_format(older)
