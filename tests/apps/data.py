"""Small data sets that ship in packages or are drawn, split for training and test."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@cache
def digits() -> Split:
    """8 x 8 images in [0, 1] and their digits: 1,400 to train, 397 to test."""
    x, y = load_digits(return_X_y=True)
    return _split((x / 16).astype(np.float32), y.astype(np.int64), 1400)


@cache
def iris() -> Split:
    """Three flowers by four lengths: 120 to train, 30 to test."""
    return _split(*load_iris(return_X_y=True), 120)


@cache
def tumours() -> Split:
    """Standardised float32 table of 30 columns: 400 to train, 169 to test."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    return _split(x, y.astype(np.int64), 400)


@cache
def topics(vocabulary: int = 2000, classes: int = 8) -> Split:
    """Texts of 24 words, a third of them of the topic: 1,600 to train, 400 to test."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 2000)
    x = rng.integers(classes * 40, vocabulary, (2000, 24))
    own = rng.random(x.shape) < 0.35
    x[own] = (y[:, None] * 40 + rng.integers(0, 40, x.shape))[own]
    return x[:1600], y[:1600], x[1600:], y[1600:]


def _split(x: np.ndarray, y: np.ndarray, train: int) -> Split:
    order = np.random.default_rng(1).permutation(len(y))
    x, y = x[order], y[order]
    return x[:train], y[:train], x[train:], y[train:]
