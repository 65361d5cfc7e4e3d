"""What a strategy's defaults are for a small model, and that settings are obeyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.codec import Layout
from flwr_caesar.plan.precision import UPLOAD_ERROR
from flwr_caesar.strategies import Caesar, CorrelationAware, MagnitudePruning, TopK

SMALL, LARGE = (64, 64), (400, 500)
# Name of a setting, what a small and what a large model get by default.
DEFAULTS: list[tuple[Callable[..., Any], str, float, float]] = [
    (TopK, "density", 0.4, 0.1),
    (CorrelationAware, "density", 0.4, 0.01),
    (MagnitudePruning, "prune_rate", 0.0, 0.5),
]


def model(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"weight": rng.normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize(("strategy", "name", "small", "large"), DEFAULTS)
def test_uploads_of_a_small_model_leave_out_less(strategy, name, small, large) -> None:
    def sent(shape: tuple[int, ...], **settings: float) -> float:
        method = strategy(FedAvg(), **settings).method
        return method.upload_for(Layout.of(model(shape))).config[name]

    assert sent(SMALL) == small
    assert sent(LARGE) == large
    assert sent(SMALL, **{name: 0.3}) == sent(LARGE, **{name: 0.3}) == 0.3


def test_errors_of_a_small_model_are_smaller() -> None:
    def config(shape: tuple[int, ...], **settings: float) -> dict[str, Any]:
        method = Caesar(FedAvg(), importance_aware=False, **settings).method
        return method.upload_for(Layout.of(model(shape))).config

    assert config(SMALL)["nmse"] == pytest.approx(4**-4, rel=0.01)
    assert config(LARGE)["nmse"] == pytest.approx(UPLOAD_ERROR, rel=0.01)
    assert config(SMALL, rate=0.5)["rate"] == config(LARGE, rate=0.5)["rate"] == 0.5


@pytest.mark.parametrize(
    ("strategy", "settings"), [(Caesar, {}), (TopK, {"downlink": "lattice"})]
)
def test_steps_of_a_resumed_run_are_those_of_the_whole(strategy, settings) -> None:
    downlink = strategy(FedAvg(), **settings).method.downlink
    downlink.publish(downlink.begin(model(LARGE)), 1)
    resumed = strategy(FedAvg(), **settings).method.downlink
    resumed.restore(downlink.state())
    moved = {"weight": model(LARGE)["weight"] * np.float32(1.01)}
    assert resumed.publish(moved, 40) == downlink.publish(moved, 40)


def test_a_small_model_is_pruned_only_where_that_is_asked_for() -> None:
    for shape, settings, kept in (
        (SMALL, {}, 1.0),
        (LARGE, {}, 0.5),
        (SMALL, {"prune_rate": 0.75}, 0.25),
        (SMALL, {"server_prune_rate": 0.75}, 0.25),
    ):
        method = MagnitudePruning(FedAvg(), **settings).method
        for pruned in (
            method.downlink.begin(model(shape)),
            method.finish(model(shape)),
        ):
            assert np.count_nonzero(pruned["weight"]) == kept * np.prod(shape)
