"""Blocks spend no more on scales than these save."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.coding import lattice_block
from flwr_caesar.codec.coding.contexts import Scales, fit_scales
from flwr_caesar.codec.coding.integers import Integers
from flwr_caesar.codec.coding.lattice_block import decode_block, encode_block
from flwr_caesar.codec.contract.layout import TensorSpec


def channels(deviation: float, inputs: int = 1500) -> Integers:
    """Return integers whose magnitudes differ by input channel."""
    rng = np.random.default_rng(0)
    own = deviation * np.exp(rng.normal(0, 1, inputs))
    return np.rint(rng.laplace(0, own, (64, inputs))).astype(np.int32)


def block(indices: Integers) -> bytes:
    specs = [TensorSpec("w", "float32", indices.shape)]
    data = encode_block(indices.reshape(-1), specs)
    np.testing.assert_array_equal(decode_block(data, specs), indices.reshape(-1))
    return data


def fine(indices: Integers) -> Scales:
    return fit_scales(indices.astype(np.float32), np.float32(1))


@pytest.mark.parametrize(
    ("deviation", "share"), [(0.05, 0.84), (0.2, 0.975), (3.0, 0.999)]
)
def test_scales_of_few_integers_are_coarse(
    deviation: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = channels(deviation)
    coarse = block(indices)
    monkeypatch.setattr(lattice_block, "_fit_scales", fine)
    assert len(coarse) < share * len(block(indices))


def test_scales_of_many_integers_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    indices = channels(9.0, inputs=24).repeat(16, axis=0)
    coarse = block(indices)
    monkeypatch.setattr(lattice_block, "_fit_scales", fine)
    assert coarse == block(indices)
