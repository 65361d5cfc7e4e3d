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
from flwr_caesar.sync.strategy_state import Learned, StrategyState

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
    learned = Learned(first)
    arrays = play(first, initial(), range(1, 4))
    second = build()
    Learned(second).restore(through_text(learned.capture()))
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
    old, new = (Custom(**dict.fromkeys(values, "built")) for _ in range(2))
    learned = Learned(old)
    vars(old).update(values)
    Learned(new).restore(through_text(learned.capture()))
    found = {name: vars(new)[name] for name in values}
    assert repr(found) == repr(values)
    assert found["scalar"].dtype == np.float32
    assert found["arrays"][1][1]["x"].dtype == np.int8


def test_functions_and_objects_stay_those_of_the_new_strategy() -> None:
    old = Custom(generator=None, odd=None)
    learned = Learned(old)
    old.generator = np.random.default_rng(0)
    old.odd = [1, object()]
    assert not learned.capture().tree


def test_a_wrapped_strategy_is_restored_with_its_wrapper() -> None:
    def build(
        rate: float = 0.1, norm: float = 0.1
    ) -> DifferentialPrivacyServerSideAdaptiveClipping:
        return DifferentialPrivacyServerSideAdaptiveClipping(
            QFedAvg(rate), 0.1, 40, initial_clipping_norm=norm
        )

    old, new = build(), build(rate=0.7, norm=0.3)
    learned = Learned(old)
    old.clipping_norm = 0.25
    inner = new.strategy
    assert isinstance(old.strategy, QFedAvg)
    assert isinstance(inner, QFedAvg)
    old.strategy.current_arrays = initial()
    Learned(new).restore(through_text(learned.capture()))
    assert new.strategy is inner
    assert inner.current_arrays == initial()
    assert inner.client_learning_rate == 0.7
    assert new.clipping_norm == 0.25  # adapted by the run, not set by the user


SETTINGS: list[tuple[type[FedAvg], dict[str, Any], dict[str, Any]]] = [
    (FedAdam, {"eta": 0.1, "beta_1": 0.5}, {"eta": 0.001, "beta_1": 0.9}),
    (FedAdam, {"fraction_train": 0.5}, {"fraction_train": 1.0}),
    (FedAdam, {"min_available_nodes": 2}, {"min_available_nodes": 1}),
    (FedAvg, {"fraction_train": 0.5}, {"fraction_train": 1.0}),
    (FedAvg, {"weighted_by_key": "a"}, {"weighted_by_key": "b"}),
    (FedAvgM, {"server_momentum": 0.9}, {"server_momentum": 0.5}),
    (FedAvgM, {"server_learning_rate": 0.9}, {"server_learning_rate": 1.0}),
]


@pytest.mark.parametrize(("kind", "before", "after"), SETTINGS)
@pytest.mark.parametrize("is_old", [False, True])
def test_settings_are_the_users_and_state_is_the_runs(
    kind: type[FedAvg], before: dict[str, Any], after: dict[str, Any], is_old: bool
) -> None:
    old = kind(**{"weighted_by_key": "num-examples"} | before)
    learned = Learned(old)
    old.weighted_by_key = "num-examples"
    play(old, initial(), range(1, 4))
    old.weighted_by_key = before.get("weighted_by_key", "num-examples")
    state = learned.capture()
    if is_old:  # as versions captured it that took settings along
        tree, arrays = dict(state.tree), dict(state.arrays)
        for name, value in before.items():
            is_float = isinstance(value, float)
            tree[name] = ["float", value.hex()] if is_float else ["plain", value]
        state = StrategyState(tree, arrays)
    new = kind(**after)
    expected = {name: vars(new)[name] for name in after}
    Learned(new).restore(through_text(state))
    assert {name: vars(new)[name] for name in after} == expected
    for name in ("m_t", "v_t", "momentum_vector"):
        if hasattr(old, name):
            assert repr(vars(new)[name]) == repr(vars(old)[name])


def test_momentum_that_is_new_after_a_resume_is_used() -> None:
    old, new = FedAvgM(), FedAvgM(server_momentum=0.9)
    learned = Learned(old)
    play(old, initial(), range(1, 3))
    Learned(new).restore(through_text(learned.capture()))
    assert new.server_opt


class Decaying(FedAvg):
    """A strategy that changes one of its own settings as it goes."""

    def __init__(self, eta: float, steps: list[float] | None = None) -> None:
        super().__init__()
        self.eta = eta
        self.steps = steps or [1.0]


@pytest.mark.parametrize(
    ("eta", "expected"), [(0.1, 0.025), (0.2, 0.2)], ids=["as before", "other setting"]
)
def test_a_setting_that_the_strategy_changed_is_state_until_the_user_sets_another(
    eta: float, expected: float
) -> None:
    old = Decaying(0.1)
    learned = Learned(old)
    old.eta /= 2
    resumed = Decaying(0.1)
    again = Learned(resumed)
    again.restore(through_text(learned.capture()))
    assert resumed.eta == 0.05
    resumed.eta /= 2
    last = Decaying(eta)
    Learned(last).restore(through_text(again.capture()))
    assert last.eta == expected


def test_containers_and_arrays_are_settings_as_long_as_nobody_changes_them() -> None:
    old = Custom(weights=np.ones(3), names=["a"], moments=np.zeros(3))
    learned = Learned(old)
    old.moments += 1  # in place
    state = learned.capture()
    assert set(state.tree) == {"moments"}
    new = Custom(weights=np.zeros(3), names=["b"], moments=np.zeros(3))
    Learned(new).restore(through_text(state))
    assert (new.names, new.weights.tolist()) == (["b"], [0, 0, 0])
    assert new.moments.tolist() == [1, 1, 1]


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
        {"eta": ["changed", []]},
        {"eta": ["changed", ["x", "float"]]},
        {"eta": ["changed", ["x", "float", 1]]},
    ],
)
def test_a_malformed_state_changes_nothing(tree: dict[str, Any]) -> None:
    strategy = FedAdam(eta=0.3)
    with pytest.raises(DamagedStateError):
        Learned(strategy).restore(StrategyState(tree))
    assert strategy.eta == 0.3
    assert strategy.m_t is None
