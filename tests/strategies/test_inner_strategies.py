"""Any Flower strategy works inside, and means the same with a lossless codec."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Result,
    Strategy,
)

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import CompressedStrategy, TopK, Uncompressed
from flwr_caesar.strategies.inner import aggregates_a_mean

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

INNER: dict[str, Callable[[], Strategy]] = {
    "FedAvg": lambda: FedAvg(fraction_train=0.7),
    "FedAdam": lambda: FedAdam(fraction_train=0.7),
    "FedAdagrad": lambda: FedAdagrad(fraction_train=0.7),
    "FedYogi": lambda: FedYogi(fraction_train=0.7),
    "FedAvgM": lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedMedian": lambda: FedMedian(),
    "FedTrimmedAvg": lambda: FedTrimmedAvg(beta=0.2),
    "Krum": lambda: Krum(num_malicious_nodes=1),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
}
MEAN = {"FedAvg", "FedAdam", "FedAdagrad", "FedYogi", "FedAvgM", "FedProx"}


def run(strategy: Strategy, mods: list | None = None, rounds: int = 3) -> Result:
    random.seed(1)
    grid = LocalGrid(numpy_app(mods=mods), 7)
    return strategy.start(grid, initial_model(), num_rounds=rounds)


def assert_same_model(a: ArrayRecord, b: ArrayRecord) -> None:
    assert list(a) == list(b)
    for name in a:
        x, y = a[name].numpy(), b[name].numpy()
        assert x.dtype == y.dtype, name
        # Adaptive optimisers divide by the size of the update, rounding included.
        tolerance = 3e-2 if name == "half" else 2e-5
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", INNER)
def test_a_lossless_wire_gives_the_same_model_as_without_us(name: str) -> None:
    plain = run(INNER[name]())
    framed = run(CompressedStrategy(INNER[name]()), mods=[compression_mod])
    measured = run(Uncompressed(INNER[name]()))
    for ours in (framed, measured):
        assert_same_model(plain.arrays, ours.arrays)
        for server_round, metrics in plain.train_metrics_clientapp.items():
            assert dict(ours.train_metrics_clientapp[server_round]) == pytest.approx(
                dict(metrics)
            )
        assert (
            ours.evaluate_metrics_clientapp.keys()
            == plain.evaluate_metrics_clientapp.keys()
        )


@pytest.mark.parametrize("name", INNER)
def test_rounds_complete_under_top_k(name: str) -> None:
    strategy = TopK(INNER[name](), density=0.05)
    result = run(strategy, mods=[compression_mod])
    trained = [r for r in strategy.history if r.phase == "train"]
    assert len(trained) == 3
    assert not any(record.dropped for record in strategy.history)
    assert not np.array_equal(
        result.arrays["weight"].numpy(), initial_model()["weight"].numpy()
    )


def test_which_strategies_are_given_a_mean() -> None:
    assert {name for name in INNER if aggregates_a_mean(INNER[name]())} == MEAN


def test_a_subclass_with_its_own_aggregation_sees_every_update() -> None:
    seen = []

    class Mine(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            seen.append(len(replies))
            return super().aggregate_train(server_round, replies)

    run(CompressedStrategy(Mine()), mods=[compression_mod], rounds=2)
    assert seen == [7, 7]


def test_a_custom_metrics_function_sees_every_device() -> None:
    seen = []

    def collect(contents, key):
        seen.append(sorted(c["metrics"][key] for c in contents))
        return contents[0]["metrics"]

    run(
        CompressedStrategy(FedAvg(train_metrics_aggr_fn=collect)),
        mods=[compression_mod],
        rounds=1,
    )
    assert seen == [[10, 20, 30, 40, 50, 60, 70]]


@pytest.mark.parametrize("private", [False, True])
def test_replies_are_weighed_by_the_innermost_key(private: bool) -> None:
    strategy: Strategy = FedAvg(fraction_evaluate=0, weighted_by_key="norm")
    if private:
        strategy = DifferentialPrivacyServerSideFixedClipping(strategy, 0.0, 10.0, 3)

    def by_norm(message: Message, context: Context, call_next) -> Message:
        reply = call_next(message, context)
        metrics = MetricRecord({"norm": 0.5})
        reply.content["metrics"] = metrics
        return reply

    wrapped = TopK(strategy)
    grid = LocalGrid(numpy_app(mods=[compression_mod, by_norm]), 3)
    wrapped.start(grid, initial_model(), num_rounds=1)
    assert not any(record.dropped for record in wrapped.history)
