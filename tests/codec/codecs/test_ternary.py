"""`ternary` keeps the largest, at their own mean magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.codecs.ternary import TernaryCodec
from flwr_caesar.codec.quantisers.select import count_kept, top_k

from ..library import Array


@given(
    hnp.arrays(np.float32, st.integers(2, 80), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(0.01, 1),
)
def test_the_magnitude_is_the_mean_of_the_kept(x: Array, density: float) -> None:
    codec = TernaryCodec(density=density, exact_below=1)
    decoded = codec.decode(codec.encode({"x": x})[0])[0]["x"]
    kept = top_k(x, count_kept(len(x), density))
    kept = kept[x[kept] != 0]
    assert np.flatnonzero(decoded).tolist() == (
        kept.tolist() if np.abs(decoded).max() > 0 else []
    )
    if len(kept):
        mean = np.float32(np.abs(x[kept].astype(np.float64)).mean())
        np.testing.assert_array_equal(decoded[kept], np.sign(x[kept]) * mean)


def test_each_tensor_has_its_own_magnitude() -> None:
    x = np.array([4, -2, 1, 0], np.float32)
    codec = TernaryCodec(density=0.5, exact_below=1)
    model = {"a": x, "zero": np.zeros(3, np.float32), "b": -10 * x}
    decoded, _ = codec.decode(codec.encode(model)[0])
    assert decoded["a"].tolist() == [3, -3, 0, 0]
    assert decoded["zero"].tolist() == [0, 0, 0]
    assert decoded["b"].tolist() == [-30, 30, 0, 0]


@pytest.mark.parametrize(("density", "bits"), [(0.01, 0.094), (0.1, 0.58)])
def test_the_cost_is_near_the_entropy(density: float, bits: float) -> None:
    x = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
    frame, _ = TernaryCodec(density=density).encode({"x": x})
    assert 8 * len(frame) / x.size < bits
