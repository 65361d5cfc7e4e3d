"""Every tensor learns at its own scale: nothing finite is refused, nothing freezes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecState, ErrorFeedback, Layout, get_codec
from flwr_caesar.codec.contract.frame import inspect_frame
from flwr_caesar.codec.published.lattice_model import decode_model, encode_model
from flwr_caesar.codec.published.publication import PointHistory
from flwr_caesar.codec.quantisers.tensor_steps import generous_rate, offsets

from ..strategies import arrays, bits, models

Arrays = dict[str, np.ndarray[Any, Any]]
CAESAR = {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 1024}
floats = st.sampled_from(["float16", "bfloat16", "float32"])


def sent_over(update: Arrays, rounds: int, config: dict[str, Any]) -> Arrays:
    """Return what arrives of a repeated update under error feedback."""
    codec = ErrorFeedback(get_codec(config))
    state: CodecState | None = CodecState(Layout.of(update))
    total = {name: np.zeros(x.shape) for name, x in update.items()}
    for _ in range(rounds):
        frame, after = codec.encode(update, state)
        decoded, _ = codec.decode(frame, state)
        total = {name: total[name] + decoded[name] for name in total}
        state = after
    return total


def missing(update: Arrays, total: Arrays, rounds: int) -> dict[str, float]:
    """Return, by tensor, what has not arrived, in updates."""
    return {
        name: float(
            np.linalg.norm(rounds * x.astype(np.float64) - total[name])
            / np.linalg.norm(x.astype(np.float64))
        )
        for name, x in update.items()
    }


@settings(max_examples=40)
@given(
    octaves=st.lists(st.integers(-60, 60), min_size=1, max_size=6),
    sizes=st.lists(st.integers(1, 700), min_size=6, max_size=6),
    seed=st.integers(0, 10**6),
)
def test_a_small_model_arrives_whatever_its_scales(octaves, sizes, seed):
    rng = np.random.default_rng(seed)
    update = {
        str(i): np.ldexp(rng.normal(size=n), octave).astype(np.float32)
        for i, (octave, n) in enumerate(zip(octaves, sizes, strict=False))
    }
    left = missing(update, sent_over(update, 4, CAESAR), 4)
    assert max(left.values()) < 1.0


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1.0, 1e2, 1e6])
def test_a_scaled_layer_loses_nothing(factor):
    """The same relative error whatever the scale of one layer, large or small."""
    rng = np.random.default_rng(0)
    base = {
        "embedding": rng.laplace(size=(2000, 64)),
        "hidden": rng.laplace(size=(64, 64)),
        "head": rng.laplace(size=(64, 20)),
        "bias": rng.normal(size=20),
    }
    for name in ("embedding", "hidden", "bias"):
        update = {k: (1e-3 * x).astype(np.float32) for k, x in base.items()}
        update[name] = (update[name] * factor).astype(np.float32)
        left = missing(update, sent_over(update, 12, CAESAR), 12)
        assert max(left.values()) < 8, (name, left)


def test_alike_scales_are_sent_as_ever():
    rng = np.random.default_rng(1)
    update = {
        "a": rng.laplace(0, 1e-3, (300, 400)).astype(np.float32),
        "b": rng.laplace(0, 2e-3, (64, 30)).astype(np.float32),
        "bias": rng.normal(0, 1e-3, 300).astype(np.float32),
    }
    frame, _ = get_codec(CAESAR).encode(update)
    assert set(inspect_frame(frame).sections) == {"TABL", "LATT"}


@given(models(arrays(floats), max_size=4), st.sampled_from([0.05, 1.0, 16.0]))
def test_whatever_is_finite_is_sent(model, rate):
    for config in (
        {**CAESAR, "rate": rate},
        {"id": "lattice", "exact_below": 0, "nmse": 0.01},
        {"id": "lattice", "exact_below": 0, "step": 1e-3},
        {"id": "topk", "exact_below": 0, "density": 0.5, "values": "float16"},
    ):
        codec = get_codec(config)
        frame, told, _ = codec.encode_decoded(model)
        decoded, _ = codec.decode(frame)
        for name, array in model.items():
            assert bits(decoded[name]) == bits(told[name])
            assert np.isfinite(decoded[name].astype(np.float64)).all()
            x, y = array.astype(np.float64), decoded[name].astype(np.float64)
            assert np.linalg.norm(x - y) <= 1.5 * np.linalg.norm(x) + 1e-30


def frozen(rng: np.random.Generator, layers: int = 200) -> Arrays:
    """Return the update of adapters beside frozen matrices."""
    update: Arrays = {}
    for i in range(layers):
        update[f"{i}.weight"] = np.zeros((96, 96), np.float32)
        update[f"{i}.bias"] = np.zeros(96, np.float32)
        update[f"{i}.norm"] = rng.normal(0, 1e-3, 16).astype(np.float32)
    return update


@pytest.mark.parametrize("config", [CAESAR, {**CAESAR, "rate": 1.0}])
def test_frozen_tensors_cost_next_to_nothing(config):
    update = frozen(np.random.default_rng(2))
    tuned = {name: x for name, x in update.items() if x.any()}
    codec = get_codec(config)
    ours, _ = codec.encode(update, CodecState(Layout.of(update)))
    alone, _ = codec.encode(tuned, CodecState(Layout.of(tuned)))
    assert len(ours) < len(alone) + 400
    left = missing(tuned, sent_over(update, 4, config), 4)
    assert max(left.values()) < 1


def test_a_frozen_model_and_a_head_of_ten_learns():
    update = {
        "backbone": np.zeros((64, 64), np.float32),
        "head": np.full(10, 0.1, np.float32),
    }
    left = missing({"head": update["head"]}, sent_over(update, 2, CAESAR), 2)
    assert left["head"] < 0.02


def test_noise_in_a_frozen_backbone_does_not_silence_the_head():
    rng = np.random.default_rng(3)
    update = {
        "backbone": rng.normal(0, 1e-12, (300, 300)).astype(np.float32),
        "head": rng.normal(0, 0.1, (10, 20)).astype(np.float32),
    }
    total = sent_over(update, 3, CAESAR)
    left = missing(update, total, 3)
    assert left["head"] < 0.1
    frame, _ = get_codec(CAESAR).encode(update)
    assert len(frame) < 0.45 * 300 * 300 / 8 + 1000


def test_a_published_model_keeps_every_scale():
    rng = np.random.default_rng(4)
    model = {
        "embedding": 1e-6 * rng.normal(size=(4000, 32)),
        "large": 1e6 * rng.normal(size=(40, 50)),
        "usual": rng.normal(size=(70, 30)),
        "bias": 1e-4 * rng.normal(size=30),
        "zero": np.zeros((50, 50)),
    }
    model = {name: x.astype(np.float32) for name, x in model.items()}
    history = PointHistory.start(model)
    for _ in range(6):
        for name, x in history.current.arrays().items():
            error = np.linalg.norm(model[name] - x)
            assert error <= 0.02 * np.linalg.norm(model[name]), name
        model = {
            name: (x * (1 + 0.1 * rng.normal(size=x.shape))).astype(np.float32)
            for name, x in model.items()
        }
        for _ in range(6):
            history = history.publish(model)
    held = decode_model(history.frame(None))
    assert all(bits(held[n]) == bits(x) for n, x in history.current.arrays().items())


def test_frozen_tensors_cost_next_to_nothing_in_a_published_model():
    rng = np.random.default_rng(5)
    model = frozen(rng)
    for name, x in model.items():
        if not x.any():
            model[name] = rng.normal(size=x.shape).astype(np.float32)
    history = PointHistory.start(model)
    base = history.current
    tuned = {n: x for n, x in model.items() if n.endswith("norm")}
    alone = PointHistory.start(tuned)
    start = alone.current
    begun = base.arrays()
    moved = {n: begun[n] + np.float32(1e-3) * rng.normal(size=16) for n in tuned}
    moved = {n: x.astype(np.float32) for n, x in moved.items()}
    history = history.publish({**begun, **moved})
    alone = alone.publish(moved)
    assert len(history.frame(base.digest)) < len(alone.frame(start.digest)) + 600
    found = decode_model(history.frame(base.digest), begun)
    assert all(bits(found[n]) == bits(x) for n, x in history.current.arrays().items())
    for _ in range(4):
        history = history.publish({**begun, **moved})
    for name, x in moved.items():
        error = np.linalg.norm(history.current.arrays()[name] - x)
        assert error < 0.01 * np.linalg.norm(x - begun[name])


@given(models(arrays(st.sampled_from(["float16", "float32", "float64"])), max_size=4))
def test_whatever_is_finite_is_published(model):
    history = PointHistory.start(model)
    for _ in range(2):
        base = history.current
        history = history.publish({n: np.asarray(-x) for n, x in model.items()})
        held = decode_model(history.frame(base.digest), base.arrays())
        whole = decode_model(encode_model(history.current))
        for name, x in history.current.arrays().items():
            assert bits(held[name]) == bits(whole[name]) == bits(x)


def test_few_elements_get_more_bits_than_the_rate():
    assert generous_rate(0.3, 1) == generous_rate(0.3, 2048) == 8
    assert generous_rate(0.3, 4096) == 4
    assert 0.3 < generous_rate(0.3, 50_000) < 0.5
    assert generous_rate(0.3, 100_000) == 0.3
    assert generous_rate(12.0, 1) == 12.0


def test_only_scales_that_are_far_off_have_an_offset():
    assert offsets([1.0, 3.0, 2.0], [9000, 2000, 1000]) == (
        pytest.approx((31_000 / 12_000) ** 0.5),
        [0, 0, 0],
    )
    assert offsets([1.0, 2.0**-20], [100, 100])[1] == [0, -20]
    assert offsets([1.0, 2.0**-20], [100, 101]) == (2.0**-20, [20, 0])
    assert offsets([2.0**30, 1.0, 0.9, 2.0**-30], [5, 100, 90, 7])[1] == [30, 0, 0, -30]


@pytest.mark.parametrize("n", [1, 2, 15, 31, 100, 1000, 4096])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_models_follow_plain_averaging(n, dtype):
    """Four devices pull 40 % a round towards a goal, over both ways."""
    goal = np.random.default_rng(n).normal(0, 0.8, n).astype(dtype)
    codec = ErrorFeedback(get_codec(CAESAR))
    states: list[CodecState | None] = [None] * 4
    history = PointHistory.start({"w": np.zeros(n, dtype)})
    size = 0
    for _ in range(6):
        held = history.current.arrays()["w"]
        mean = np.zeros(n)
        for i, state in enumerate(states):
            update = {"w": (0.4 * (goal - held)).astype(dtype)}
            known = state or CodecState(Layout.of(update))
            frame, states[i] = codec.encode(update, known)
            size = max(size, len(frame))
            mean += codec.decode(frame, known)[0]["w"] / 4
        history = history.publish({"w": (held + mean).astype(dtype)})
    left = np.linalg.norm(history.current.arrays()["w"] - goal) / np.linalg.norm(goal)
    assert left < 0.06
    assert size < np.zeros(n, dtype).nbytes / 4 + 250
