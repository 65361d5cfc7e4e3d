"""A strategy that takes a mean is given it as one reply, to the same end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedProx, Strategy

from flwr_caesar.flower import act_in_run
from flwr_caesar.strategies.mean import Combined
from flwr_caesar.strategies.one_reply import Made, OneReply
from flwr_caesar.strategies.phase import TRAIN, Phase, Reply
from flwr_caesar.transport import arrays_to_record, record_to_arrays

MODEL = {
    "half": np.array([1, -0.0, 6e-8, 65504], np.float16),
    "w": np.array([[1e-45, -3e38], [np.inf, 0.1]], np.float32).T,
    "wide": np.array(1 / 3),
    "steps": np.array([12.25, 7.0]),
    "nothing": np.zeros((0, 3), np.float32),
}


def message(**metrics: float) -> Message:
    act_in_run(1)
    content = RecordDict({"metrics": MetricRecord({"num-examples": 2.0, **metrics})})
    return Message(content, dst_node_id=1, message_type="train")


def phase_of(*losses: float) -> Phase:
    phase = Phase(TRAIN, 1)
    for node_id, loss in enumerate(losses, 1):
        made = message(loss=loss)
        phase.replies[node_id] = Reply(
            node_id, made, made.content, weight=2.0, key="arrays"
        )
    return phase


def test_a_strategy_whose_object_aggregates_is_given_the_mean() -> None:
    """As by an app that replaces the method of one object, not of its class."""
    inner, given = FedAvg(), []

    def listening(number: int, replies: Iterable[Message]) -> Made:
        messages = list(replies)
        given.extend(message.content["arrays"] for message in messages)
        return FedAvg.aggregate_train(inner, number, messages)

    vars(inner)["aggregate_train"] = listening
    record = arrays_to_record(MODEL)
    OneReply(inner, "num-examples").aggregate(phase_of(3.0), Combined(record, 2.0))
    assert given == [record]


@pytest.mark.parametrize(
    "make", [FedAvg, lambda: FedProx(proximal_mu=0.1), type("Own", (FedAvg,), {})]
)
def test_what_is_not_computed_is_what_flower_computes(
    make: Callable[[], Strategy],
) -> None:
    record = arrays_to_record(MODEL)
    reply = message(loss=4.0)
    reply.content["arrays"] = record
    expected, _ = make().aggregate_train(1, [reply])
    made, metrics = OneReply(make(), "num-examples").aggregate(
        phase_of(3.0, 5.0), Combined(record, 4.0)
    )
    assert made is record
    assert metrics is not None
    assert metrics["loss"] == 4
    assert expected is not None
    for (name, a), (other, b) in zip(
        record_to_arrays(expected).items(), record_to_arrays(made).items(), strict=True
    ):
        assert (name, a.dtype, a.shape) == (other, b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def test_a_strategy_that_computes_is_given_the_mean() -> None:
    inner = FedAvgM(server_learning_rate=0.5, server_momentum=0.0)
    inner.current_arrays = arrays_to_record({"w": np.zeros(2, np.float32)})
    combined = Combined(arrays_to_record({"w": np.ones(2, np.float32)}), 1.0)
    made, _ = OneReply(inner, "num-examples").aggregate(phase_of(1.0), combined)
    assert made is not None
    np.testing.assert_allclose(record_to_arrays(made)["w"], 0.5)


def test_nothing_of_a_round_is_held_after_it() -> None:
    one_reply = OneReply(FedAvg(), "num-examples")
    phase = phase_of(1.0)
    combined = Combined(arrays_to_record(MODEL), 1.0)
    gc.disable()
    try:
        one_reply.aggregate(phase, combined)
        held = weakref.ref(phase)
        del phase
        assert held() is None
    finally:
        gc.enable()
