"""`rotated`: orthonormal, unbiased, and as precise as theory on any input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.codecs.rotated import RotatedCodec, block_sizes, levels

from ..library import nmse

UNBIASED = {1: 0.5708, 2: 0.1331, 3: 0.03578, 4: 0.009592}
LEAST = {1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009501}
DRAWS = 300


@given(st.integers(0, 1 << 20))
def test_blocks_cover_with_few_to_spare(n: int) -> None:
    sizes = block_sizes(n)
    assert n <= sum(sizes) < n + 32
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= n // 65536 + 11


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_each_level_is_the_mean_of_its_cell(bits: int) -> None:
    book = levels(bits).astype(float)
    edges = [-40.0, *((book[1:] + book[:-1]) / 2), 40.0]
    for level, a, b in zip(book, edges[:-1], edges[1:], strict=True):
        density = (math.exp(-a * a / 2) - math.exp(-b * b / 2)) / math.sqrt(2 * math.pi)
        mass = (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2
        assert level == pytest.approx(density / mass, rel=1e-6)


def distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    n = 200_000
    heavy = rng.standard_normal(n) * np.exp(rng.standard_normal(n))
    return {
        "gaussian": rng.standard_normal(n).astype(np.float32),
        "heavy": heavy.astype(np.float32),
        "constant": np.full(n, 1e-3, np.float32),
        "ramp": np.linspace(0, 1e6, n, dtype=np.float32),
    }


@pytest.mark.parametrize("kind", ["gaussian", "heavy", "constant", "ramp"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_error_is_within_2_percent_of_theory(bits: int, kind: str) -> None:
    x = distributions()[kind]
    for scale, theory in (("unbiased", UNBIASED), ("least_squares", LEAST)):
        codec = RotatedCodec(bits=bits, scale=scale)
        frame, _ = codec.encode({"x": x})
        decoded = codec.decode(frame)[0]["x"]
        assert nmse(x, decoded) == pytest.approx(theory[bits], rel=0.02)
        assert 8 * len(frame) / x.size < bits + 0.02


def test_the_unbiased_scale_keeps_the_projection() -> None:
    x = distributions()["heavy"]
    for bits in UNBIASED:
        codec = RotatedCodec(bits=bits)
        decoded = codec.decode(codec.encode({"x": x})[0])[0]["x"].astype(np.float64)
        assert decoded @ x == pytest.approx(np.square(x.astype(np.float64)).sum())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_mean_over_seeds_is_the_input(bits: int) -> None:
    n = 2048 + 300
    x = np.random.default_rng(8).laplace(0, 1, n).astype(np.float32)
    total = np.zeros(n)
    power = 0.0
    for seed in range(DRAWS):
        codec = RotatedCodec(bits=bits, seed=seed)
        error = codec.decode(codec.encode({"x": x})[0])[0]["x"].astype(float) - x
        total += error
        power += float(np.square(error).sum())
    # With independent errors of mean zero, |sum|^2 / sum |error|^2 has mean 1 and,
    # over about n directions, standard deviation sqrt(2 / n) = 0.03: beyond 0.18 with
    # probability below 1e-8. A bias of 4 % of the error would add 0.48.
    assert np.square(total).sum() / power == pytest.approx(1, abs=0.18)


def test_blocks_of_zeros_and_tiny_tensors() -> None:
    codec = RotatedCodec(exact_below=1)
    model = {
        "zeros": np.zeros(70_000, np.float32),
        "one": np.array([-3], np.float32),
        "tiny": np.full(3, 1e-45, np.float32),
    }
    decoded, _ = codec.decode(codec.encode(model)[0])
    assert np.abs(decoded["zeros"]).max() < 3
    alone, _ = codec.decode(codec.encode({"one": model["one"]})[0])
    assert alone["one"][0] == pytest.approx(-3)


def test_other_data_turn_otherwise() -> None:
    codec = RotatedCodec(bits=1)
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    y = x.copy()
    y[0] += np.float32(1e-3)
    errors = [codec.decode(codec.encode({"x": v})[0])[0]["x"] - v for v in (x, y)]
    assert abs(np.corrcoef(*errors)[0, 1]) < 0.1
