"""Fashion-MNIST: 70,000 images of ten kinds of clothing, as Debian packages them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from .cache import cached_arrays, key_of
from .config import DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .idx import read_idx
from .partition import partition_labels

_INSTALL = (
    "fashion_mnist needs the files of Debian's package dataset-fashion-mnist "
    "(31 MB): apt-get install dataset-fashion-mnist, or set data.folder to where they "
    "are"
)
_FILES = {
    "train_images": ("train-images-idx3-ubyte.gz", (60_000, 28, 28)),
    "train_labels": ("train-labels-idx1-ubyte.gz", (60_000,)),
    "test_images": ("t10k-images-idx3-ubyte.gz", (10_000, 28, 28)),
    "test_labels": ("t10k-labels-idx1-ubyte.gz", (10_000,)),
}
_CLASSES = 10
_MEAN, _STD = np.float32(0.2860), np.float32(0.3530)
_HELD_OUT_SEED = 70_000


def missing(config: DataConfig) -> str:
    """Return how to install the files if they are not all there; else nothing."""
    folder = Path(config.folder)
    there = all((folder / name).is_file() for name, _ in _FILES.values())
    return "" if there else _INSTALL


def load_partition(
    config: DataConfig, partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return one device's share of the 60,000 training images.

    Images are float32, ``(n, 1, 28, 28)``, standardised by the mean and deviation of
    the training set's pixels. A device has 10 examples at least, or its equal share if
    that is less.

    Raises
    ------
    ConfigError
        If the files are missing or damaged, or there are more devices than images.
    """
    arrays = _load(config)
    indices = _partition(config, num_partitions, seed)[partition_id]
    return _examples(arrays, "train", indices)


def load_test(config: DataConfig) -> Examples:
    """Return `config.test_size` of the data set's own 10,000 test images.

    Raises
    ------
    ConfigError
        If the files are missing or damaged, or have fewer images than that.
    """
    arrays = _load(config)
    count = len(arrays["test_labels"])
    if config.test_size > count:
        raise ConfigError(
            "data.test_size",
            f"must be at most {count}, the test images of fashion_mnist, not "
            f"{config.test_size}",
        )
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(count)
    return _examples(arrays, "test", np.sort(order[: config.test_size]))


@lru_cache(maxsize=4)
def _partition(config: DataConfig, num_partitions: int, seed: int) -> tuple[Array, ...]:
    labels = _load(config)["train_labels"]
    return partition_labels(labels, config, num_partitions, seed)


@lru_cache(maxsize=1)
def _load(config: DataConfig) -> Mapping[str, Array]:
    if absent := missing(config):
        raise ConfigError("data.name", absent)
    folder = Path(config.folder)
    try:
        return cached_arrays(_key(folder), tuple(_FILES), lambda: _read(folder), _check)
    except (OSError, ValueError) as err:
        raise ConfigError(
            "data.folder", f"cannot be used for fashion_mnist: {err}"
        ) from err


def _key(folder: Path) -> str:
    """Name a copy by the files that it was made of, as far as a look tells."""
    found = [(folder / name).resolve() for name, _ in _FILES.values()]
    facts = [(str(path), (s := path.stat()).st_size, s.st_mtime_ns) for path in found]
    return key_of("fashion_mnist", facts)


def _read(folder: Path) -> Mapping[str, Array]:
    return {
        key: read_idx(folder / name, shape).copy()
        for key, (name, shape) in _FILES.items()
    }


def _check(arrays: Mapping[str, Array]) -> None:
    for key, (name, shape) in _FILES.items():
        if arrays[key].shape != shape or arrays[key].dtype != np.uint8:
            raise ValueError(f"not the array of {name}")
        if key.endswith("labels") and arrays[key].max() >= _CLASSES:
            raise ValueError(f"{name} has labels of more than {_CLASSES} classes")


def _examples(arrays: Mapping[str, Array], split: str, indices: Array) -> Examples:
    pixels = arrays[f"{split}_images"][indices, np.newaxis].astype(np.float32)
    pixels /= np.float32(255)
    pixels -= _MEAN
    pixels /= _STD
    return Examples(pixels, arrays[f"{split}_labels"][indices].astype(np.int64))
