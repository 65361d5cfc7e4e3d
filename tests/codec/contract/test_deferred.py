"""Arrays that are made when somebody reads one of them, and once."""

from __future__ import annotations

import numpy as np

from flwr_caesar.codec import CodecState, get_codec
from flwr_caesar.codec.contract.deferred import Deferred


def test_they_are_made_once_and_when_they_are_read() -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"a": np.ones(2), "b": np.zeros(3)}

    deferred = Deferred(make)
    assert not made
    assert list(deferred) == ["a", "b"]
    assert len(deferred) == 2
    assert deferred["b"].shape == (3,)
    assert made == [1]


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
    calls.clear()
    assert after.digest == decoded.digest
    assert len(calls) == 2
