"""Replies with which the inner strategy cannot work cost themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    Strategy,
)

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import CompressedStrategy, TopK, Uncompressed
from flwr_caesar.strategies.culprit import culprits
from flwr_caesar.transport import told_nbytes

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid

ALL = {
    "min_available_nodes": 1,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "fraction_evaluate": 0.0,
}

INNER = {
    "mean": lambda: FedAvg(**ALL),
    "median": lambda: FedMedian(**ALL),
    "trimmed": lambda: FedTrimmedAvg(**ALL),
    "krum": lambda: Krum(num_malicious_nodes=1, **ALL),
    "bulyan": lambda: Bulyan(num_malicious_nodes=0, **ALL),
    "private": lambda: DifferentialPrivacyServerSideFixedClipping(
        FedAvg(**ALL), 1e-6, 100.0, 4
    ),
    "adaptive": lambda: DifferentialPrivacyServerSideAdaptiveClipping(
        FedMedian(**ALL), 1e-6, 4, 100.0, clipped_count_stddev=0.1
    ),
}

Change = Callable[[RecordDict], None]


def weigh(weight: float, **more: float) -> Change:
    """Claim a weight, and metrics that no other device has."""

    def change(content: RecordDict) -> None:
        metrics = {**content["metrics"], "num-examples": weight, **more}
        content["metrics"] = MetricRecord(metrics)

    return change


def add(record: Callable[[], object]) -> Change:
    return lambda content: content.__setitem__("more", record())


def one_array() -> ArrayRecord:
    return ArrayRecord({"x": Array(np.ones(3, np.float32))})


def train(
    strategy: Strategy,
    changes: dict[int, Change],
    *,
    nodes: int,
    kind: str = "train",
    rounds: int = 2,
) -> dict[str, np.ndarray]:
    """Train with some devices whose replies of a kind are changed."""

    def tamper(reply: Message, node: int) -> Message:
        if reply.has_content() and reply.metadata.message_type == kind:
            changes.get(node, lambda content: None)(reply.content)
        return reply

    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), nodes, tamper=tamper)
    result = strategy.start(grid, initial_model(), num_rounds=rounds)
    return {name: array.numpy() for name, array in result.arrays.items()}


def dropped(strategy: CompressedStrategy, phase: str = "train") -> list[set[int]]:
    return [set(r.dropped) for r in strategy.history if r.phase == phase]


def moved(model: dict[str, np.ndarray]) -> bool:
    return not np.array_equal(model["weight"], initial_model()["weight"].numpy())


@pytest.mark.parametrize("wrap", [TopK, Uncompressed])
@pytest.mark.parametrize("name", INNER)
def test_a_device_without_examples_does_not_end_a_run(name, wrap) -> None:
    """Alone, with metrics of its own that come first, or chosen by Krum."""
    strategy = wrap(INNER[name]())
    assert not moved(train(strategy, {1: weigh(0)}, nodes=1))
    strategy = wrap(INNER[name]())
    after = train(strategy, {1: weigh(0, odd=1.0)}, nodes=2)
    assert moved(after) != (name == "bulyan")  # which needs more than one
    strategy = wrap(INNER[name]())
    after = train(strategy, {n: weigh(0) for n in (1, 2, 3)}, nodes=4)
    assert moved(after) != (name == "bulyan")


def test_a_device_without_examples_is_not_to_blame() -> None:
    strategy = TopK(INNER["median"]())
    train(strategy, {2: weigh(0)}, nodes=3, rounds=5)
    assert dropped(strategy) == [{2}] * 5  # asked each time: it is not left out


@pytest.mark.parametrize("wrap", [TopK, Uncompressed])
@pytest.mark.parametrize("name", INNER)
def test_a_record_that_no_other_reply_has_does_not_end_a_run(name, wrap) -> None:
    strategy = wrap(INNER[name]())
    assert moved(train(strategy, {2: add(one_array)}, nodes=4))
    assert dropped(strategy) == [set() if name == "mean" else {2}] * 2


def only_honest(records: Sequence[RecordDict], key: str) -> MetricRecord:
    """Stand for a user's function that takes no odd values."""
    losses = [record["metrics"]["loss"] for record in records]
    if any(loss > 100 for loss in losses):
        raise ValueError("a loss above 100")
    return MetricRecord({"loss": sum(losses) / len(losses)})


@pytest.mark.parametrize("inner", [FedAvg, FedMedian])
@pytest.mark.parametrize("bad", [{1}, {3}, {2, 5}, {1, 2, 3, 4}])
def test_who_makes_the_strategy_raise_an_error_is_found(inner, bad) -> None:
    strategy = TopK(inner(train_metrics_aggr_fn=only_honest, **ALL))
    changes = {node: weigh(10, loss=1e9) for node in bad}
    assert moved(train(strategy, changes, nodes=6))
    assert dropped(strategy) == [bad] * 2
    assert "a loss above 100" in strategy.history[0].dropped[min(bad)]
    unharmed = TopK(inner(train_metrics_aggr_fn=only_honest, **ALL))
    train(unharmed, {}, nodes=6)
    assert dropped(unharmed) == [set()] * 2


def test_who_makes_an_evaluation_raise_an_error_is_found() -> None:
    def of_norms(records: Sequence[RecordDict], key: str) -> MetricRecord:
        norms = [record["metrics"]["norm"] for record in records]
        return MetricRecord({"norm": float(sum(map(int, norms)))})

    everyone = {**ALL, "fraction_evaluate": 1.0}
    strategy = TopK(FedAvg(evaluate_metrics_aggr_fn=of_norms, **everyone))
    change = weigh(10, norm=float("nan"))
    train(strategy, {3: change}, nodes=4, kind="evaluate")
    assert dropped(strategy, "evaluate") == [{3}] * 2
    assert "cannot convert float NaN" in strategy.history[1].dropped[3]


def test_a_mistake_of_the_strategy_itself_is_told_as_it_is() -> None:
    calls = []

    def mistaken(records: Sequence[RecordDict], key: str) -> MetricRecord:
        calls.append(len(records))
        raise KeyError("los")

    strategy = TopK(FedAvg(train_metrics_aggr_fn=mistaken, **ALL))
    with pytest.raises(KeyError, match="los"):
        train(strategy, {}, nodes=30)
    assert len(calls) < 50


def test_one_reply_that_is_alone_does_not_end_a_run_that_has_worked() -> None:
    """Nobody else answers in the second round."""
    seen = []

    def change(content: RecordDict) -> None:
        seen.append(1)
        if len(seen) == 2:
            weigh(10, loss=1e9)(content)

    strategy = TopK(FedAvg(train_metrics_aggr_fn=only_honest, **ALL))
    train(strategy, {1: change}, nodes=1, rounds=3)
    assert dropped(strategy) == [set(), {1}, set()]


@pytest.mark.parametrize(
    ("bad", "fewest"), [({0}, 1), ({7}, 1), ({3, 4, 9}, 1), ({0, 1}, 3), ({5}, 3)]
)
def test_culprits_are_found_by_few_trials(bad: set[int], fewest: int) -> None:
    trials = []

    def works(nodes: Sequence[int]) -> bool:
        trials.append(nodes)
        return len(nodes) >= fewest and not bad & set(nodes)

    assert set(culprits(range(64), works)) == bad
    assert len(trials) <= 10 * (len(bad) + 1)
    assert all(trials)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
def test_nobody_is_blamed_for_what_no_reply_is_the_cause_of(count: int) -> None:
    trials = []

    def works(nodes: Sequence[int]) -> bool:
        trials.append(nodes)
        return False

    assert culprits(range(count), works) == []
    assert len(trials) <= 64


def test_a_strategy_that_takes_replies_apart_is_asked_again() -> None:
    """FedMedian empties the records it is given; the mean of two of these overflows."""

    def step(arrays, node, server_round):
        out = drift(arrays, node, server_round)
        return {**out, "weight": np.full((64, 48), 3e38 if node > 1 else 1, np.float32)}

    random.seed(0)
    strategy = TopK(FedMedian(**ALL), density=1.0, guards=False)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), 4)
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert [len(nodes) for nodes in dropped(strategy)] == [1]
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())


@pytest.mark.parametrize(
    "record",
    [
        lambda: ConfigRecord({f"k{i}": i for i in range(220_000)}),
        lambda: ConfigRecord({"text": "x" * 17_000_000}),
        lambda: ConfigRecord({"texts": [""] * 270_000}),
        lambda: ConfigRecord({"numbers": [0] * 2_150_000}),
    ],
    ids=["names", "text", "texts", "numbers"],
)
def test_what_a_reply_says_beside_its_arrays_is_bounded(record) -> None:
    strategy = TopK(FedAvg(**ALL))
    train(strategy, {2: add(record)}, nodes=3, rounds=1)
    assert "at most 17 are expected" in strategy.history[0].dropped[2]


def test_ordinary_metrics_are_within_the_bounds() -> None:
    """A matrix of 1,000 x 1,000 and ten thousand names."""
    names = {f"k{i}": 1 for i in range(10_000)}
    metrics = MetricRecord({"matrix": [0.0] * 1_000_000, **names})
    assert told_nbytes(RecordDict({"metrics": metrics})) < 16 << 20
