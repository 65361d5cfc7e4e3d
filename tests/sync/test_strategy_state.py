from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    QFedAvg,
)
from flwr.supercore.task_identity import TaskIdentity

from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.strategy_state import StrategyState, capture, restore

STRATEGIES: list[Callable[[], FedAvg]] = [
    FedAdam,
    FedYogi,
    FedAdagrad,
    lambda: FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
]


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Grid:
    def get_node_ids(self) -> list[int]:
        return [1, 2]


def replies(server_round: int) -> list[Message]:
    rng = np.random.default_rng(server_round)
    messages = []
    for node in (1, 2):
        arrays = {
            "w": Array(rng.standard_normal((4, 3)).astype(np.float32)),
            "b": Array(rng.standard_normal(3)),
        }
        content = RecordDict(
            {
                "arrays": ArrayRecord(arrays),
                "metrics": MetricRecord({"num-examples": node}),
            }
        )
        messages.append(Message(content, dst_node_id=node, message_type="train"))
    return messages


def play(strategy: FedAvg, arrays: ArrayRecord, rounds: range) -> ArrayRecord:
    for number in rounds:
        list(strategy.configure_train(number, arrays, ConfigRecord(), Grid()))  # type: ignore[arg-type]
        result, _ = strategy.aggregate_train(number, replies(number))
        assert result is not None
        arrays = result
    return arrays


def initial() -> ArrayRecord:
    return ArrayRecord(
        {"w": Array(np.ones((4, 3), np.float32)), "b": Array(np.ones(3))}
    )


def through_text(state: StrategyState) -> StrategyState:
    return StrategyState(json.loads(json.dumps(state.tree)), state.arrays)


@pytest.mark.parametrize("build", STRATEGIES)
def test_a_restored_strategy_goes_on_bit_by_bit(build: Callable[[], FedAvg]) -> None:
    expected = play(build(), initial(), range(1, 8))
    first = build()
    arrays = play(first, initial(), range(1, 4))
    second = build()
    restore(second, through_text(capture(first)))
    assert {k: v.data for k, v in play(second, arrays, range(4, 8)).items()} == {
        k: v.data for k, v in expected.items()
    }
    third = play(build(), arrays, range(4, 8))
    assert {k: v.data for k, v in third.items()} != {
        k: v.data for k, v in expected.items()
    }


class Custom(FedAvg):
    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.__dict__.update(values)


def test_all_kinds_of_plain_values_come_back() -> None:
    values = {
        "nothing": None,
        "flag": True,
        "number": 2**80,
        "real": float("nan"),
        "tiny": 5e-324,
        "text": "é",
        "blob": b"\x00\xff",
        "scalar": np.float32(0.1),
        "arrays": [np.arange(3), (np.ones(()), {"x": np.zeros(0, np.int8)})],
        "by_node": {1: 2.5, (2, "a"): {3}},
        "record": initial(),
    }
    new = Custom(**dict.fromkeys(values))
    restore(new, through_text(capture(Custom(**values))))
    found = {name: vars(new)[name] for name in values}
    assert repr(found) == repr(values)
    assert found["scalar"].dtype == np.float32
    assert found["arrays"][1][1]["x"].dtype == np.int8


def test_functions_and_objects_stay_those_of_the_new_strategy() -> None:
    old = Custom(generator=np.random.default_rng(0), odd=[1, object()])
    state = capture(old)
    assert not {"generator", "odd", "train_metrics_aggr_fn"} & set(state.tree)


def test_a_wrapped_strategy_is_restored_with_its_wrapper() -> None:
    def build() -> DifferentialPrivacyServerSideAdaptiveClipping:
        return DifferentialPrivacyServerSideAdaptiveClipping(QFedAvg(0.1), 0.1, 40)

    old, new = build(), build()
    old.clipping_norm = 0.25
    inner = new.strategy
    assert isinstance(old.strategy, QFedAvg)
    assert isinstance(inner, QFedAvg)
    old.strategy.current_arrays = initial()
    restore(new, through_text(capture(old)))
    assert new.strategy is inner
    assert inner.current_arrays == initial()
    assert new.clipping_norm == 0.25


def test_a_changed_setting_wins_over_the_captured_one() -> None:
    state = capture(FedAdam(eta=0.1), built=capture(FedAdam(eta=0.1)))
    new = FedAdam(eta=0.5)
    restore(new, state)
    assert new.eta == 0.5


@pytest.mark.parametrize(
    "tree",
    [
        {"m_t": ["array", "7"]},
        {"m_t": ["array", []]},
        {"m_t": ["unknown", 1]},
        {"m_t": ["dict", [[1]]]},
        {"m_t": ["float", "x"]},
        {"m_t": ["record", [["a", 1, [], "s", ["plain", 1]]]]},
        {"m_t": ["strategy", {}]},
        {"m_t": 3},
        {"eta": ["plain", 1], "m_t": []},
    ],
)
def test_a_malformed_state_changes_nothing(tree: dict[str, Any]) -> None:
    strategy = FedAdam(eta=0.3)
    with pytest.raises(DamagedStateError):
        restore(strategy, StrategyState(tree))
    assert strategy.eta == 0.3
    assert strategy.m_t is None
