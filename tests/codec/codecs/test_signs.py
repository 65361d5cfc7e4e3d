"""`signs`: one magnitude a tensor, and the energy its formula says is lost."""

from __future__ import annotations

import numpy as np

from flwr_caesar.codec.codecs.signs import SignsCodec

from ..library import nmse


def test_by_hand_with_zero_positive() -> None:
    x = np.array([3, -1, 0, -0.0], np.float32)
    codec = SignsCodec(exact_below=2)
    decoded, _ = codec.decode(codec.encode({"x": x, "y": 10 * x})[0])
    assert decoded["x"].tolist() == [1, -1, 1, 1]
    assert decoded["y"].tolist() == [10, -10, 10, 10]


def test_the_loss_is_the_formula() -> None:
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    codec = SignsCodec()
    frame, _ = codec.encode({"x": x})
    wide = x.astype(np.float64)
    lost = 1 - np.abs(wide).sum() ** 2 / x.size / np.square(wide).sum()
    assert abs(nmse(x, codec.decode(frame)[0]["x"]) - lost) < 1e-6
    assert len(frame) <= x.size / 8 + 300
