"""Human activity recognition: shoulder exercises of ten people, from a smartwatch.

The measurements ship inside `seglearn`, which is not imported: only its file is read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .cache import cached_arrays
from .config import DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .partition import held_out, partition_labels, partition_owners

WINDOW = 128
STRIDE = 64
_INSTALL = "activity needs seglearn 1.2.5: pip install 'flwr-caesar[activity]'"
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
_SAMPLES, _AXES, _SERIES, _CLASSES, _PEOPLE = 244_102, 6, 140, 7, 10
_MEAN = np.array([-0.008, 0.379, -0.147, 0.025, -0.002, 0.012], np.float32)
_STD = np.array([0.903, 0.494, 0.538, 0.982, 2.496, 1.052], np.float32)
_NAMES = ("samples", "lengths", "labels", "people")


def missing(config: DataConfig) -> str:
    """Return how to install seglearn if it is not there; else nothing."""
    return "" if _file() else _INSTALL


def load_partition(
    config: DataConfig, partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return one device's training examples: with the natural partition one person's.

    Raises
    ------
    ConfigError
        If seglearn is not installed, its file is another, or there are more devices
        than people or examples.
    """
    train, _, sizes = load_split(config.test_size)
    if config.partition == "natural":
        parts = partition_owners(sizes, config, num_partitions, seed, owner="person")
    else:
        parts = partition_labels(train.y, config, num_partitions, seed)
    return train.select(parts[partition_id])


def load_test(config: DataConfig) -> Examples:
    """Return the test examples; see `load_split`."""
    return load_split(config.test_size)[1]


@lru_cache(maxsize=2)
def load_split(test_size: int) -> tuple[Examples, Examples, tuple[int, ...]]:
    """Return training examples, test examples, and how many each person trains on.

    An example is a window of 128 samples at 50 Hz, 2.56 seconds, of acceleration (g)
    and angular velocity (rad/s), each along three axes, every axis standardised by its
    mean and deviation; float32, ``(n, 6, 128)``. Its label is one of seven exercises.
    Windows begin every 64 samples. There are 140 series: one for each person, exercise
    and arm. The test has the last windows of each, in proportion to its length, and no
    sample of a test window is in a training window. Training examples are in the order
    of the people.

    Raises
    ------
    ConfigError
        If nothing would be left to train on, or seglearn is not installed.
    """
    arrays = _load()
    lengths = arrays["lengths"].tolist()
    counts = (arrays["lengths"] - WINDOW) // STRIDE + 1
    tested = held_out(counts, test_size, f"activity's {counts.sum()} windows")
    overlap = WINDOW // STRIDE - 1  # windows that share samples with a test window
    samples = (arrays["samples"] - _MEAN) / _STD
    train: list[Array] = []
    test: list[Array] = []
    starts = np.cumsum([0, *lengths[:-1]])
    for start, count, tests in zip(starts, counts, tested, strict=True):
        first = start + STRIDE * np.arange(count)
        test.append(first[count - tests :])
        train.append(first[: count - tests - overlap * (tests > 0)])
    sizes = np.bincount(
        arrays["people"], [len(own) for own in train], minlength=_PEOPLE
    )
    return (
        _examples(samples, train, arrays["labels"]),
        _examples(samples, test, arrays["labels"]),
        tuple(int(size) for size in sizes),
    )


def _examples(samples: Array, starts: list[Array], labels: Array) -> Examples:
    first = np.concatenate(starts)
    windows = samples[first[:, np.newaxis] + np.arange(WINDOW)].transpose(0, 2, 1)
    y = np.repeat(labels, [len(own) for own in starts])
    return Examples(np.ascontiguousarray(windows, np.float32), y.astype(np.int64))


def _file() -> Path | None:
    spec = find_spec("seglearn")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    return path if path.is_file() else None


@lru_cache(maxsize=1)
def _load() -> Mapping[str, Array]:
    path = _file()
    if path is None:
        raise ConfigError("data.name", _INSTALL)
    try:
        return cached_arrays("activity-1", _NAMES, lambda: _read(path), _check)
    except (OSError, ValueError) as err:
        raise ConfigError("data.name", f"activity cannot be loaded: {err}") from err


def _read(path: Path) -> Mapping[str, Array]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ValueError(
            f"{path} is not the file of seglearn 1.2.5, and no other pickle is opened: "
            "pip install --force-reinstall --no-deps seglearn==1.2.5"
        )
    data = np.load(io.BytesIO(content), allow_pickle=True).item()
    people, labels = np.asarray(data["subject"]) - 1, np.asarray(data["y"])
    order = np.lexsort((data["side"], labels, people))
    series = [data["X"][i] for i in order]
    return {
        "samples": np.concatenate(series).astype(np.float32),
        "lengths": np.array([len(one) for one in series], np.int64),
        "labels": labels[order].astype(np.int64),
        "people": people[order].astype(np.int64),
    }


def _check(arrays: Mapping[str, Array]) -> None:
    form = {
        "samples": ((_SAMPLES, _AXES), np.float32),
        "lengths": ((_SERIES,), np.int64),
        "labels": ((_SERIES,), np.int64),
        "people": ((_SERIES,), np.int64),
    }
    for name, (shape, dtype) in form.items():
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise ValueError(f"not the {name} of activity")
    if arrays["lengths"].min() < WINDOW or arrays["lengths"].sum() != _SAMPLES:
        raise ValueError("not the lengths of activity")
    for name, count in (("labels", _CLASSES), ("people", _PEOPLE)):
        if arrays[name].min() < 0 or arrays[name].max() >= count:
            raise ValueError(f"not the {name} of activity")
    if not np.isfinite(arrays["samples"]).all():
        raise ValueError("not the samples of activity")
