"""What a server remembers: frames lead every base to one model, restarts included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, StateMismatchError
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published import publication
from flwr_caesar.codec.published.lattice_model import (
    LatticeRules,
    decode_model,
    encode_model,
    is_undoable,
)
from flwr_caesar.codec.published.publication import PointHistory, initial_point

from .test_lattice_model import moved, network, same

Arrays = dict[str, np.ndarray[Any, Any]]
N = 20_000


def drift(rng: np.random.Generator, rounds: int, by: float = 1e-3) -> list[Arrays]:
    w = rng.normal(0, 0.05, N).astype(np.float32)
    models = []
    for _ in range(rounds):
        models.append({"w": w})
        w = w + by * rng.normal(size=N).astype(np.float32)
    return models


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    by=st.lists(st.sampled_from([0.0, 1e-4, 1e-2, 1.0]), min_size=1, max_size=6),
    shared=st.booleans(),
    max_points=st.integers(0, 4),
    restart=st.integers(0, 5),
)
def test_devices_at_any_version_end_with_one_model(
    seed, by, shared, max_points, restart
):
    rng = np.random.default_rng(seed)
    w = network(rng)
    history = PointHistory.start(w, shared=shared, max_points=max_points)
    held = [history.current.arrays()]
    for i, step in enumerate(by):
        if i == restart:
            history = PointHistory.from_arrays(
                history.to_arrays(), max_points=max_points
            )
        w = moved(w, rng, step)
        history = history.publish(w)
        held.append(history.current.arrays())
    target = held[-1]
    assert same(decode_model(history.frame(None)), target)
    for age, model in enumerate(reversed(held)):
        digest = model_digest(model)
        known = age <= max_points or (shared and age == len(by))
        assert not known or digest in history.bases
        if digest in history.bases:
            frame = history.frame(digest)
            assert same(decode_model(frame, model), target)
            assert len(frame) <= len(history.frame(None))


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), shared=st.booleans())
def test_a_restart_changes_nothing(seed, shared):
    rng = np.random.default_rng(seed)
    w = network(rng)
    history = PointHistory.start(w, shared=shared, step_sigmas=1.5)
    for _ in range(3):
        w = moved(w, rng, 0.01)
        history = history.publish(w)
    again = PointHistory.from_arrays(history.to_arrays(), step_sigmas=1.5)
    assert list(again.bases) == list(history.bases)
    assert again.to_arrays().keys() == history.to_arrays().keys()
    w = moved(w, rng, 0.01)
    a, b = history.publish(w), again.publish(w)
    assert a.current.digest == b.current.digest
    for base in (None, *a.bases):
        assert a.frame(base) == b.frame(base)


def test_a_newcomer_who_rebuilds_the_first_model_gets_a_change():
    rng = np.random.default_rng(0)
    models = drift(rng, 6)
    history = PointHistory.start(models[0], shared=True, max_points=1)
    for model in models[1:]:
        history = history.publish(model)
    mine = initial_point({"w": models[0]["w"].copy()})
    assert mine.digest in history.bases
    frame = history.frame(mine.digest)
    assert same(decode_model(frame, mine.arrays()), history.current.arrays())
    assert len(frame) < 0.6 * len(history.frame(None))
    other = initial_point({"w": models[0]["w"] * np.float32(1.1)})
    assert other.digest not in history.bases


def test_what_is_published_follows_the_model():
    rng = np.random.default_rng(1)
    models = drift(rng, 12)
    history = PointHistory.start(models[0])
    for model in models[1:]:
        history = history.publish(model)
        left = model["w"] - history.current.arrays()["w"]
        assert np.sqrt(np.mean(left**2)) < 1e-3
    assert 2.0**-10 <= 2.0**history.exponent <= 2.0**-8
    bits = [8 * len(history.frame(base)) / N for base in history.bases]
    assert bits[1] < 1.8  # from the version before
    assert sorted(bits[1:]) == bits[1:]
    assert 8 * len(PointHistory.start(models[0]).frame(None)) / N < 9


def test_steps_shrink_as_training_converges():
    rng = np.random.default_rng(2)
    w = {"w": rng.normal(0, 0.05, N).astype(np.float32)}
    history = PointHistory.start(w)
    exponents = []
    for t in range(6):
        w = moved(w, rng, 1e-2 * 4.0**-t)
        history = history.publish(w)
        exponents.append(history.exponent)
    assert exponents == sorted(exponents, reverse=True)
    assert exponents[0] - exponents[-1] >= 4
    last = history.exponent
    for _ in range(60):
        history = history.publish(w)
    assert history.exponent <= last
    assert np.abs(history.current.arrays()["w"] - w["w"]).max() < 1e-6


def test_a_change_larger_than_the_model_is_sent_whole():
    rng = np.random.default_rng(3)
    fine = {"w": rng.normal(size=N).astype(np.float32)}
    history = PointHistory.start(fine, exponent=-18)
    base = history.current.digest
    history = history.publish({"w": np.zeros(N, np.float32)}, exponent=-4)
    assert history.frame(base) is not None
    far = rng.normal(0, 2.0**20, N).astype(np.float32)
    history = history.publish({"w": far}, exponent=-4)
    assert history.frame(base) is history.frame(None)


def test_memory_is_bounded_and_what_is_forgotten_is_refused():
    rng = np.random.default_rng(4)
    models = drift(rng, 8)
    history = PointHistory.start(models[0], shared=True, max_bytes=3 * 2 * N)
    digests = [history.current.digest]
    for model in models[1:]:
        history = history.publish(model)
        digests.append(history.current.digest)
    assert list(history.bases) == [*reversed(digests[-4:]), digests[0]]
    with pytest.raises(StateMismatchError):
        history.frame(digests[1])


def test_frames_are_shared_and_histories_immutable():
    models = drift(np.random.default_rng(5), 2)
    before = PointHistory.start(models[0])
    digest = before.current.digest
    after = before.publish(models[1])
    assert before.current.digest == digest != after.current.digest
    assert after.frame(digest) is after.frame(digest)
    assert len(after.frame(after.current.digest)) < 400


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"n": np.array(3)},
        {"z": np.zeros(2000, np.float32)},
        {"h": np.ones(2000, np.float16), "b": np.ones(3, np.float32)},
        {"huge": np.full(2000, 1e20, np.float32)},
        {"tiny": np.full(2000, 1e-38, np.float32)},
    ],
    ids=lambda model: "-".join(model) or "empty",
)
def test_odd_models(model):
    history = PointHistory.start(model, shared=True)
    base = history.current
    history = history.publish({name: array * 2 for name, array in model.items()})
    frame = history.frame(base.digest)
    assert same(decode_model(frame, base.arrays()), history.current.arrays())
    again = PointHistory.from_arrays(history.to_arrays())
    assert again.current.digest == history.current.digest


def test_damaged_states_and_senseless_models_are_refused():
    models = drift(np.random.default_rng(6), 3)
    history = PointHistory.start(
        models[0], shared=True, rules=LatticeRules(fine_below=8)
    )
    history = history.publish(models[1]).publish(models[2])
    state = history.to_arrays()
    for name, array in state.items():
        flat = array.reshape(-1)
        for bad in (flat[:-1], np.where(np.arange(flat.size) == 3, 77, flat)):
            try:
                found = PointHistory.from_arrays({**state, name: bad})
            except CodecError:
                continue
            assert name == "grids" or "exponents" in name  # say how, not what
            assert found.current.digest == history.current.digest
    for name in ("grids", "exponents", "first.exponents"):
        with pytest.raises(CodecError, match="no state"):
            PointHistory.from_arrays({k: v for k, v in state.items() if k != name})
    with pytest.raises(CodecError, match="other tensors"):
        history.publish({"v": models[0]["w"]})
    with pytest.raises(CodecError, match="step_sigmas"):
        PointHistory.start(models[0], step_sigmas=0)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what models are encoded."""
    calls: list[Any] = []
    monkeypatch.setattr(
        publication,
        "encode_model",
        lambda *given: calls.append(given) or encode_model(*given),
    )
    return calls


def test_a_checkpoint_and_the_devices_share_one_change(encoded):
    first, second, third = drift(np.random.default_rng(0), 3)
    history = PointHistory.start(first).publish(second)
    encoded.clear()
    state = history.to_arrays()
    frame = history.frame(history.older[0].point.digest)
    assert state["older/0"].tobytes() == frame
    assert len(encoded) == 1
    again = PointHistory.from_arrays(state)
    assert len(again.to_arrays()) == len(state)
    assert len(encoded) == 1
    history = history.publish(third)
    history.to_arrays()
    assert len(encoded) == 2


def test_a_change_that_only_devices_needed_is_not_kept():
    first, second, third = drift(np.random.default_rng(0), 3)
    history = PointHistory.start(first).publish(second)
    history.frame(history.older[0].point.digest)
    assert "change" in history.older[0].__dict__
    history = history.publish(third)
    assert not any("change" in entry.__dict__ for entry in history.older)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e30])
def test_a_history_through_tensors_as_they_are_comes_back(odd):
    """Their change does not tell what they were, so the way back is another frame."""
    first, second, third = drift(np.random.default_rng(0), 3)
    second["w"] = second["w"].copy()
    second["w"][3] = odd
    history = PointHistory.start(first)
    for model in (second, third):
        history = history.publish(model)
    assert not is_undoable(history.older[0].change)
    again = PointHistory.from_arrays(history.to_arrays())
    assert [
        same(a.point.arrays(), b.point.arrays())
        for a, b in zip(again.older, history.older, strict=True)
    ] == [True, True]


def test_a_history_of_earlier_releases_comes_back():
    """They wrote of each older point how to come from the next one."""
    rng = np.random.default_rng(0)
    w = {**network(rng), "half": rng.normal(size=2000).astype(np.float16)}
    history = PointHistory.start(w, shared=True)
    for _ in range(3):
        w = moved(w, rng, 0.01)
        w["half"] = (w["half"] + 0.01).astype(np.float16)
        history = history.publish(w)
    for old in (False, True):
        state = history.to_arrays()
        if old:
            for i, entry in enumerate(history.older):
                back = encode_model(entry.point, entry.next)
                state[f"older/{i}"] = np.frombuffer(back, np.uint8)
        again = PointHistory.from_arrays(state)
        for a, b in zip(again.older, history.older, strict=True):
            assert same(a.point.arrays(), b.point.arrays())
            assert a.point.exponents == b.point.exponents
        assert list(again.bases) == list(history.bases)


def test_a_whole_model_or_another_change_cannot_be_undone():
    first, second = drift(np.random.default_rng(0), 2)
    history = PointHistory.start(first).publish(second)
    (entry,) = history.older
    held = entry.point.arrays()
    assert same(decode_model(entry.change, history.current.arrays(), undo=True), held)
    for frame, base in ((history.frame(None), held), (entry.change, held)):
        with pytest.raises(CodecError):
            decode_model(frame, base, undo=True)
