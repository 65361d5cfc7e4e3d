"""Caesar's download: the paper's recovery rule, with and without a stale model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecState, ErrorFeedback, Layout, StateMismatchError
from flwr_caesar.codec.codecs.caesar_model import CaesarModelCodec, recover, with_stale
from flwr_caesar.codec.quantisers.select import count_pruned

from ..library import small_model


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_recovery_by_hand() -> None:
    negative = np.array([False, False, False, False, True, True, True, True])
    stale = f32(0.5, 2.0, 2.5, -0.5, -0.5, 0.5, 0.0, -2.5)
    # Kept: right sign and at most 2. Zero is positive, so it fails a negative sign.
    expected = f32(0.5, 2.0, 1, 1, -0.5, -1, -1, -1)
    mean, largest = np.float32(1), np.float32(2)
    np.testing.assert_array_equal(recover(negative, mean, largest, stale), expected)
    zeros = f32(0, -0.0)
    kept = recover(np.array([False, False]), mean, largest, zeros)
    np.testing.assert_array_equal(kept, f32(0, 0))
    without = recover(negative, mean, largest, None)
    np.testing.assert_array_equal(without, f32(1, 1, 1, 1, -1, -1, -1, -1))


def test_a_frame_by_hand() -> None:
    w = f32(5, -4, 1, -2, 0)
    codec = CaesarModelCodec(drop_fraction=0.6, exact_below=1)
    frame, _ = codec.encode({"w": w})
    layout = Layout.of({"w": w})
    np.testing.assert_array_equal(codec.decode(frame)[0]["w"], f32(5, -4, 1, -1, 1))
    stale = {"w": f32(9, 9, 2.5, -1.5, 0)}
    decoded, after = codec.decode(frame, with_stale(layout, stale))
    np.testing.assert_array_equal(decoded["w"], f32(5, -4, 1, -1.5, 0))
    assert not after.private


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 99), st.booleans())
def test_full_precision_is_exact_and_the_rest_bounded(
    theta: float, seed: int, has_stale: bool
) -> None:
    model = small_model(seed)
    codec = CaesarModelCodec(drop_fraction=theta, exact_below=16)
    frame, _ = codec.encode(model)
    drift = small_model(seed + 1)
    stale = {n: (a + 0.3 * drift[n]).astype(a.dtype) for n, a in model.items()}
    layout = Layout.of(model)
    state = with_stale(layout, stale) if has_stale else CodecState(layout)
    decoded, _ = codec.decode(frame, state)
    for name, w in model.items():
        if w.size < 16 or w.dtype.kind == "i":
            assert decoded[name].tobytes() == w.tobytes()
            continue
        dropped = count_pruned(w.size, theta)
        assert int((decoded[name] != w).sum()) <= dropped
        largest = np.sort(np.abs(w), axis=None)[dropped - 1] if dropped else 0
        assert np.abs(w.astype(np.float64) - decoded[name]).max() <= largest


def test_a_close_stale_model_helps() -> None:
    rng = np.random.default_rng(0)
    w = {"w": rng.standard_normal((200, 200)).astype(np.float32)}
    stale = {"w": w["w"] + rng.normal(0, 0.05, (200, 200)).astype(np.float32)}
    codec = CaesarModelCodec()
    frame, state = codec.encode(w)
    blind, _ = codec.decode(frame)
    helped, _ = codec.decode(frame, with_stale(state.layout, stale))
    errors = [np.square(w["w"] - d["w"]).sum() for d in (blind, helped)]
    # What is left are mostly elements just within the bound, stale just without it.
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.3, 0.45, 0.6, 0.9, 1.0])
def test_the_cost_is_within_5_percent_of_the_ideal(theta: float) -> None:
    # Random bits: nothing for zstd to gain in the values or their exponents.
    bits = np.random.default_rng(0).integers(0, 1 << 32, 400_000, dtype=np.uint32)
    w = bits.view(np.float32)
    w = w[np.isfinite(w)]
    frame, _ = CaesarModelCodec(drop_fraction=theta).encode({"w": w})
    entropy = -sum(p * np.log2(p) for p in (theta, 1 - theta) if p)
    ideal = 32 * (1 - theta) + theta + entropy
    assert 8 * len(frame) / w.size <= 1.05 * ideal


def test_a_stale_model_of_another_shape_is_refused() -> None:
    w = np.ones((40, 40), np.float32)
    codec = CaesarModelCodec()
    frame, state = codec.encode({"w": w})
    for stale in ({"w": w[:20]}, {"v": w}):
        with pytest.raises(StateMismatchError, match="stale"):
            codec.decode(frame, with_stale(state.layout, stale))


def test_a_stale_model_with_nan_is_never_decoded() -> None:
    w = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    codec = CaesarModelCodec()
    frame, state = codec.encode({"w": w})
    stale = {"w": np.full_like(w, np.nan)}
    decoded, _ = codec.decode(frame, with_stale(state.layout, stale))
    np.testing.assert_array_equal(decoded["w"], codec.decode(frame)[0]["w"])


def test_a_residual_is_not_mistaken_for_a_stale_model() -> None:
    feedback = ErrorFeedback(CaesarModelCodec())
    model = small_model()
    state = seen = None
    for _ in range(3):
        frame, state = feedback.encode(model, state)
        decoded, seen = feedback.decode(frame, seen)
        alone, _ = feedback.decode(frame, CodecState(state.layout))
        for name, array in decoded.items():
            np.testing.assert_array_equal(array, alone[name])
