"""`prune` zeroes the right share of the whole message and keeps the rest exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.codecs.prune import PruneCodec

from ..library import small_model


@given(st.floats(0, 1), st.integers(0, 2**32))
def test_the_share_is_exact_and_global(rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = {
        "a": rng.standard_normal((20, 10)).astype(np.float32),
        "b": (10 * rng.standard_normal((20, 10))).astype(np.float32),
    }
    codec = PruneCodec(prune_rate=rate)
    decoded, _ = codec.decode(codec.encode(model)[0])
    before = np.concatenate([a.reshape(-1) for a in model.values()])
    after = np.concatenate([a.reshape(-1) for a in decoded.values()])
    assert int((after == 0).sum()) == int(rate * 400)
    kept = after != 0
    np.testing.assert_array_equal(after[kept], before[kept])
    if kept.any() and not kept.all():
        assert np.abs(before[~kept]).max() <= np.abs(before[kept]).min()


def test_ties_do_not_change_the_share() -> None:
    codec = PruneCodec(prune_rate=0.25)
    decoded, _ = codec.decode(codec.encode({"x": np.ones((10, 10), np.float32)})[0])
    assert int(decoded["x"].sum()) == 75


def test_zeros_are_pruned_first() -> None:
    x = np.ones((10, 10), np.float32)
    x[:3] = 0
    codec = PruneCodec(prune_rate=0.25)
    np.testing.assert_array_equal(codec.decode(codec.encode({"x": x})[0])[0]["x"], x)


def test_rates_of_zero_and_one() -> None:
    model = small_model()
    keep, _ = PruneCodec(prune_rate=0).decode(PruneCodec(prune_rate=0).encode(model)[0])
    for name, array in keep.items():
        np.testing.assert_array_equal(array, model[name])
    drop, _ = PruneCodec(prune_rate=1).decode(PruneCodec(prune_rate=1).encode(model)[0])
    np.testing.assert_array_equal(drop["conv.bias"], model["conv.bias"])
    assert not drop["conv.weight"].any()
    assert not drop["fc.weight"].any()


def test_1d_tensors_are_pruned_on_request() -> None:
    codec = PruneCodec(prune_rate=1, exclude_1d=False)
    decoded, _ = codec.decode(codec.encode(small_model())[0])
    assert not decoded["conv.bias"].any()


@pytest.mark.parametrize(("rate", "bits"), [(0.5, 14.2), (0.9, 3.2), (0.99, 0.42)])
def test_the_cost_on_gaussian_weights(rate: float, bits: float) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 500)).astype(np.float32)
    frame, _ = PruneCodec(prune_rate=rate).encode({"x": x})
    assert 8 * len(frame) / x.size < bits


@pytest.mark.parametrize("scale", [1e-6, 1e-1, 1e1, 1e6])
def test_a_layer_is_not_pruned_for_its_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    model = {
        "a": (scale * rng.standard_normal((40, 50))).astype(np.float32),
        "b": rng.standard_normal((60, 50)).astype(np.float32),
        "zero": np.zeros((5, 5), np.float32),
    }
    codec = PruneCodec(prune_rate=0.5, relative=True)
    decoded, _ = codec.decode(codec.encode(model)[0])
    assert sum(int((x == 0).sum()) for x in decoded.values()) == int(0.5 * 5025)
    for name in ("a", "b"):
        assert 0.4 < (decoded[name] == 0).mean() < 0.6
