"""What both kinds of exchange ask of messages, models and replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.flower import act_in_run
from flwr_caesar.strategies.charge import Work
from flwr_caesar.strategies.exchange import (
    cast_like,
    most_frame_bytes,
    nonnegative_sum,
    others,
    require_one_message_each,
    require_size,
    same_model,
)
from flwr_caesar.strategies.phase import Request
from flwr_caesar.transport import arrays_to_record

MODEL = {"w": np.arange(6, dtype=np.float16), "n": np.array(3, np.int64)}
LAYOUT = Layout.of(MODEL)


def to(node: int) -> Message:
    act_in_run(1)  # messages take their sender from it
    return Message(RecordDict(), dst_node_id=node, message_type="train")


def test_a_node_is_asked_once() -> None:
    require_one_message_each([to(1), to(2)], "FedAvg")
    with pytest.raises(ValueError, match="FedAvg sends two messages to node 2"):
        require_one_message_each([to(1), to(2), to(2)], "FedAvg")


def test_one_model_built_for_each_device_is_one_model() -> None:
    built = [arrays_to_record(MODEL) for _ in range(3)]
    assert same_model(built) is built[0]


@pytest.mark.parametrize(
    "other",
    [
        {"w": MODEL["w"] + 1, "n": MODEL["n"]},
        {"w": MODEL["w"].reshape(2, 3), "n": MODEL["n"]},
        {"n": MODEL["n"], "w": MODEL["w"]},
        {"w": MODEL["w"]},
    ],
    ids=["values", "shape", "order", "names"],
)
def test_two_models_are_not_one(other: Any) -> None:
    with pytest.raises(ValueError, match="different models"):
        same_model([arrays_to_record(MODEL), arrays_to_record(other)])


def test_an_aggregated_model_keeps_the_tensors_it_began_with() -> None:
    made = cast_like(LAYOUT, {"w": MODEL["w"] / np.float64(3), "n": np.array(2.6)})
    assert Layout.of(made) == LAYOUT
    assert made["n"] == 3
    np.testing.assert_array_equal(made["w"], (MODEL["w"] / 3).astype(np.float16))


def test_other_tensors_are_named() -> None:
    with pytest.raises(ValueError, match="'n' is missing"):
        cast_like(LAYOUT, {"w": MODEL["w"]})


def test_a_reply_may_be_four_times_what_was_sent_and_16_mb() -> None:
    aside = {"mask": arrays_to_record({"m": np.zeros(1000)})}
    request = Request(1, "arrays", MODEL, aside, 0, Work())
    sent = 20 + sum(len(a.data) for a in aside["mask"].values())
    most = 4 * sent + (16 << 20)
    require_size(request, most)
    with pytest.raises(CodecError, match="17 MB"):
        require_size(request, most + 1)
    assert most_frame_bytes(LAYOUT) == 2 * 20 + (1 << 16)


def test_which_sums_have_no_negative_element() -> None:
    base = {name: np.array([0.0, 2.0]) for name in ("up", "down", "edge")}
    base |= {"signed": np.array([-1.0, 2.0])}
    update = {
        "up": np.array([1.0, 0.0]),
        "down": np.array([0.0, -2.1]),
        "edge": np.array([0.0, -2.0]),
        "signed": np.array([5.0, 5.0]),
    }
    assert nonnegative_sum(base, update) == {"up", "edge"}


def test_the_others_are_all_array_records_but_the_model() -> None:
    model, mask = ArrayRecord(), arrays_to_record({"m": np.zeros(2)})
    assert others(RecordDict({"arrays": model, "mask": mask}), "arrays") == {
        "mask": mask
    }
