"""`qsgd` is unbiased, and as variable as its formula says."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.codecs.qsgd import QSGDCodec

DRAWS = 400


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("levels", [1, 7, 255])
def test_the_mean_over_seeds_is_the_input(norm: str, levels: int) -> None:
    x = np.random.default_rng(1).laplace(0, 1, 2000).astype(np.float32)
    draws = np.array(
        [
            c.decode(c.encode({"x": x})[0])[0]["x"]
            for c in (QSGDCodec(levels=levels, norm=norm, seed=s) for s in range(DRAWS))
        ],
        np.float64,
    )
    scale = np.abs(x).max() if norm == "linf" else np.linalg.norm(x)
    y = np.abs(x.astype(np.float64)) / scale * levels
    variance = (y - np.floor(y)) * (1 - y + np.floor(y)) * (scale / levels) ** 2
    error = draws.mean(0) - x
    # The mean error of all 2,000 elements along x, in standard deviations. Under
    # unbiasedness 5.3 is exceeded with probability 1e-7.
    z = float(error @ x / np.sqrt(np.square(x) @ variance / DRAWS))
    assert abs(z) < 5.3
    # And the squared error is the variance over the draws, so no element is off:
    # this ratio has mean 1 and a deviation of less than 0.08 for heavy tails.
    assert 0.6 < np.square(error).sum() * DRAWS / variance.sum() < 1.4


def test_other_data_and_other_seeds_draw_otherwise() -> None:
    x = np.full(5000, 0.3, np.float32)
    x[0] = 1
    y = x.copy()
    y[0] = -1

    def pattern(x: np.ndarray, seed: int) -> list[bool]:
        c = QSGDCodec(levels=1, seed=seed)
        return list(c.decode(c.encode({"x": x})[0])[0]["x"][1:] > 0)

    assert pattern(x, 0) == pattern(x, 0)
    assert pattern(x, 0) != pattern(x, 1)
    assert pattern(x, 0) != pattern(y, 0)


def test_each_tensor_has_its_own_norm() -> None:
    x = np.array([1, -1, 0], np.float32)
    c = QSGDCodec(levels=3, exact_below=1)
    model = {"a": x, "zero": 0 * x, "b": 100 * x}
    decoded, _ = c.decode(c.encode(model)[0])
    for name, array in model.items():
        np.testing.assert_allclose(decoded[name], array, rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_bucket_is_rounded_as_a_tensor_of_its_own(norm: str) -> None:
    x = np.random.default_rng(2).laplace(0, 1, 1000).astype(np.float32)
    x[256:512] = 0
    c = QSGDCodec(levels=4, norm=norm, bucket=256, exact_below=0)
    decoded, _ = c.decode(c.encode({"x": x, "y": 100 * x})[0])
    for scale, array in ((1, decoded["x"]), (100, decoded["y"])):
        for start in range(0, 1000, 256):
            own, run = array[start : start + 256], scale * x[start : start + 256]
            size = np.abs(run).max() if norm == "linf" else np.linalg.norm(run)
            unit = max(float(size), 1e-9) / 4
            np.testing.assert_allclose(own / unit, np.rint(own / unit), atol=1e-4)
            assert np.abs(own - run).max() <= 1.001 * unit


def test_small_buckets_keep_few_levels_near() -> None:
    x = np.random.default_rng(3).normal(0, 1, 100_000).astype(np.float32)

    def error(bucket: int) -> float:
        c = QSGDCodec(levels=256, norm="l2", bucket=bucket)
        decoded, _ = c.decode(c.encode({"x": x})[0])
        return float(np.square(decoded["x"] - x).sum() / np.square(x).sum())

    assert error(0) > 0.2
    for bucket in (64, 512):
        # A sixth, the mean of u (1 - u), of the square of a level.
        assert error(bucket) == pytest.approx(bucket / 256**2 / 6, rel=0.1)


def test_the_largest_share_is_kept_and_rounded():
    x = np.random.default_rng(3).laplace(0, 1, 2000).astype(np.float32)
    draws = [
        c.decode(c.encode({"x": x})[0])[0]["x"]
        for c in (
            QSGDCodec(levels=65536, norm="l2", density=0.25, seed=seed)
            for seed in range(4)
        )
    ]
    kept = np.abs(x) >= np.sort(np.abs(x))[-500]
    norm = np.linalg.norm(x[kept])
    for draw in draws:
        assert not draw[~kept].any()
        assert np.abs(draw - x)[kept].max() <= 1.001 * norm / 65536


@pytest.mark.parametrize("levels", [256, 65536])
def test_many_levels_cost_few_bits(levels: int):
    x = np.random.default_rng(3).normal(0, 1, (100, 300)).astype(np.float32)
    c = QSGDCodec(levels=levels, norm="l2")
    frame, _ = c.encode({"x": x})
    decoded, _ = c.decode(frame)
    spread = levels / np.sqrt(x.size)
    assert np.abs(decoded["x"] - x).max() <= np.linalg.norm(x) / levels
    entropy = np.log2(1 + spread * np.sqrt(2 * np.pi * np.e))
    assert 8 * len(frame) / x.size < entropy + 0.4
