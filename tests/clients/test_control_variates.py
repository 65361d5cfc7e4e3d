"""The device's half: when control variates move, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.methods import device_method
from flwr_caesar.sync.device import Received
from flwr_caesar.sync.state import DeviceState, Pending
from flwr_caesar.transport import arrays_to_record, record_to_arrays

MODEL = {"w": np.array([1, 0, 3], np.float32), "n": np.array(4, np.int64)}
SENT = {"w": np.array([2, 2, 2], np.float32), "n": np.array(5, np.int64)}
MOVE = {"phase": "settle", "epoch": 7, "p": 0.5, "lr": 0.25}


def part(**settings: object):
    return device_method("control_variates", settings)


def trained(epoch: int = 7) -> DeviceState:
    """Return the state after an upload of `SENT` with id 99."""
    state = DeviceState(bytes(16), 1)
    training = part(phase="train", epoch=epoch)
    state, content = training.before(Received(state, MODEL), RecordDict())
    assert not content["control"]
    state = replace(state, pending=(Pending(99, (1, 1), b"", "model"),))
    return training.after(state, MODEL, SENT)


def moved(state: DeviceState, applied=(99,), content=None, **settings: object):
    asked = part(**{**MOVE, **settings})
    received = Received(state, MODEL, applied=applied)
    after, _ = asked.before(received, content or RecordDict())
    return after, asked.report(after)


def control(state: DeviceState) -> dict[str, np.ndarray]:
    _, content = part(phase="train", epoch=7).before(
        Received(state, MODEL), RecordDict()
    )
    return record_to_arrays(content["control"])


def test_it_moves_by_the_difference_to_what_was_sent() -> None:
    state, report = moved(trained())
    assert report == {"epoch": 7, "settled": 1}
    np.testing.assert_array_equal(control(state)["w"], [-2, -4, 2])
    assert set(control(state)) == {"w"}


def test_it_moves_once() -> None:
    once, _ = moved(trained())
    twice, report = moved(once)
    assert report == {"epoch": 7, "settled": 1}
    np.testing.assert_array_equal(control(twice)["w"], control(once)["w"])


@pytest.mark.parametrize("applied", [(), (98,)])
def test_an_upload_that_was_not_applied_moves_nothing(applied) -> None:
    state, report = moved(trained(), applied)
    assert report == {"epoch": 7, "settled": 0}
    assert not control(state)
    late, report = moved(state)
    assert report["settled"] == 0
    assert not control(late)


def test_a_new_epoch_starts_from_zero_and_then_moves() -> None:
    first, _ = moved(trained())
    again = replace(first, pending=(Pending(99, (1, 2), b"", "model"),))
    again = part(phase="train", epoch=7).after(again, MODEL, SENT)
    state, report = moved(again, epoch=8)
    assert report == {"epoch": 8, "settled": 1}
    kept, content = part(phase="train", epoch=8).before(
        Received(state, MODEL), RecordDict()
    )
    np.testing.assert_array_equal(
        record_to_arrays(content["control"])["w"], [-2, -4, 2]
    )
    tested = part(phase="evaluate", epoch=9)
    kept, content = tested.before(Received(kept, MODEL), RecordDict())
    assert tested.report(kept) == {}
    assert part(phase="train", epoch=9).report(kept) == {"epoch": 9, "settled": 0}
    assert not content


def mean_record(**arrays: np.ndarray) -> RecordDict:
    return RecordDict({"mean": arrays_to_record({**MODEL, **arrays})})


def test_a_mean_beside_the_model_counts_in_its_place() -> None:
    content = mean_record(w=np.array([2, 3, 4], np.float32))
    state, _ = moved(trained(), content=content)
    np.testing.assert_array_equal(control(state)["w"], [0, 2, 4])
    state, _ = moved(trained(), content=content, support=True)
    np.testing.assert_array_equal(control(state)["w"], [0, 0, 4])


@pytest.mark.parametrize("epoch", [None, 0, -1, 1 << 63, "7"])
def test_an_epoch_out_of_range_is_refused(epoch) -> None:
    with pytest.raises(CodecError, match="epoch"):
        part(phase="train", epoch=epoch)


@pytest.mark.parametrize(
    "bad", [{"p": 2}, {"p": None}, {"lr": 0}, {"lr": float("nan")}, {"lr": "much"}]
)
def test_a_plan_out_of_range_is_refused(bad) -> None:
    with pytest.raises(CodecError, match=next(iter(bad))):
        moved(trained(), **bad)


def test_a_mean_of_other_tensors_is_refused() -> None:
    other = RecordDict({"mean": arrays_to_record({"w": np.zeros(3, np.float32)})})
    with pytest.raises(CodecError, match="tensors"):
        moved(trained(), content=other)
    with pytest.raises(CodecError, match="shape"):
        moved(trained(), content=mean_record(w=np.zeros(4, np.float32)))
    with pytest.raises(CodecError, match="cannot be moved"):
        moved(trained(), content=mean_record(w=np.zeros(4, np.float32)), support=True)
