"""Flower's face: an inner strategy, a method and options, and nothing to override."""

from __future__ import annotations

from logging import INFO

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import get_codec
from flwr_caesar.strategies import (
    CompressedStrategy,
    ServerMethod,
    TopK,
    Uncompressed,
)
from flwr_caesar.transport import record_to_arrays

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

TOPK = {"id": "topk", "density": 0.2, "values": "float16"}


def run(strategy, *, mods=(compression_mod,)):
    grid = LocalGrid(numpy_app(mods=list(mods)), 3)
    result = strategy.start(grid, initial_model(), num_rounds=2)
    return record_to_arrays(result.arrays)


def equal(a, b) -> bool:
    """Whether two models are equal in float32, but for the order of its sums."""
    return np.allclose(a["weight"], b["weight"], rtol=0, atol=1e-4)


def bytes_up(strategy) -> list[int]:
    return [sum(d.bytes_up for d in r.devices) for r in strategy.history]


def test_without_a_method_it_changes_nothing():
    assert equal(run(CompressedStrategy(FedAvg())), run(FedAvg(), mods=()))


def test_a_thin_constructor_is_a_method_and_options():
    method = ServerMethod(upload=get_codec(TOPK), error_feedback=True)
    composed = CompressedStrategy(FedAvg(), method, max_residual_age=9)
    thin = TopK(FedAvg(), density=0.2, max_residual_age=9)
    assert equal(run(composed), run(thin))
    # Tokens and ids are random, and may be shortened by a byte or two.
    assert bytes_up(composed) == pytest.approx(bytes_up(thin), abs=20)
    assert composed.method is method


def test_the_inner_strategy_is_reached_and_changed_through_it():
    inner = FedAvg(fraction_train=0.5)
    strategy = TopK(inner)
    assert strategy.fraction_train == 0.5
    strategy.fraction_train = 0.25
    assert inner.fraction_train == 0.25
    strategy.own = 1
    assert not hasattr(inner, "own")
    with pytest.raises(AttributeError):
        strategy.nothing  # noqa: B018
    with pytest.raises(AttributeError):
        strategy._private  # noqa: B018


def test_an_option_that_does_not_exist_is_refused_with_one_that_does():
    with pytest.raises(TypeError, match=r"TopK got .*'qorum'; did you mean 'quorum'"):
        TopK(FedAvg(), qorum=0.5)
    with pytest.raises(ValueError, match="max_residual_age has no effect"):
        Uncompressed(FedAvg(), max_residual_age=1)


def test_what_is_not_started_here_is_told_to_be_outermost():
    strategy = TopK(FedAvg())
    grid = LocalGrid(numpy_app(), 3)
    for configure in (strategy.configure_train, strategy.configure_evaluate):
        with pytest.raises(ValueError, match="TopK must be the outermost strategy"):
            configure(1, initial_model(), ConfigRecord(), grid)


def test_the_log_says_what_travels(caplog):
    with caplog.at_level(INFO, logger="flwr"):
        TopK(FedAvg(), density=0.2).summary()
    said = caplog.text
    assert "Upload: topk density=0.2" in said
    assert "with error feedback" in said
    assert "Inside: FedAvg" in said
