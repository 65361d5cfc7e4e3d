"""Arrays that are made when somebody reads one of them, and once."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.contract.deferred import Deferred, nbytes_of


def test_they_are_made_once_and_when_they_are_read() -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"a": np.ones(2), "b": np.zeros(3)}

    deferred = Deferred(make, 40)
    assert nbytes_of(deferred) == 40
    assert not made
    assert list(deferred) == ["a", "b"]
    assert len(deferred) == 2
    assert deferred["b"].shape == (3,)
    assert made == [1]
    assert nbytes_of(dict(deferred)) == 40


def test_a_sender_that_drops_what_is_remembered_never_makes_it(monkeypatch) -> None:
    from flwr_caesar.codec.predictors import bounded_tensor

    calls, real = [], bounded_tensor.remember

    def remember(*args):
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(bounded_tensor, "remember", remember)
    codec = get_codec({"id": "error_bounded"})
    rng = np.random.default_rng(0)
    update = {f"{i}": rng.normal(size=(40, 50)).astype(np.float32) for i in range(2)}
    frame, _, after = codec.encode_decoded(update)
    assert not calls
    _, decoded = codec.decode(frame, CodecState(after.layout))
    assert not calls
    digest = after.digest
    assert len(calls) == 2
    assert decoded.digest == digest


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_what_was_not_held_is_made_again_of_what_was_sent(scale: float) -> None:
    codec, some = get_codec({"id": "error_bounded", "abs_bound": 1e-3}), {"a"}
    rng = np.random.default_rng(0)
    whole = told = None
    for _ in range(3):
        update = {
            name: np.float32(scale) * rng.normal(size=shape).astype(np.float32)
            for name, shape in {"a": (40, 50), "b": (30, 8, 3, 3)}.items()
        }
        frame, decoded, whole = codec.encode_decoded(update, whole)
        same, few, told = codec.encode_decoded(update, told, only=some)
        assert same == frame
        assert few.keys() == some
        assert np.array_equal(few["a"], decoded["a"])
        update["b"][:] = 0  # a caller's own, and not what is remembered
        assert told.digest == whole.digest
        assert nbytes_of(told.arrays) == codec.memory_nbytes(told.layout)
        assert nbytes_of(dict(told.arrays)) == codec.memory_nbytes(told.layout)


def test_what_is_decoded_is_shared_with_what_is_remembered_if_asked_for() -> None:
    codec = get_codec({"id": "error_bounded"})
    update = {"a": np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)}
    frame, state = codec.encode(update, CodecState(Layout.of(update)))
    known = CodecState(state.layout)
    own, after = codec.decode(frame, known)
    shared, then = codec.decode(frame, known, shared=True)
    assert np.shares_memory(shared["a"], then.arrays["previous/a"])
    assert not shared["a"].flags.writeable
    own["a"][:] = 0
    assert after.digest == then.digest == state.digest
