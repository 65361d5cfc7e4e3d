"""Python's reference manual, as it ships with Python for ``help()``: text, by topic."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from .config import MIN_PARTITION_SIZE, DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .partition import partition_owners
from .text import encode_ascii

LENGTH = 80
_INSTALL = (
    "pydoc needs Python's own help text, pydoc_data, which this Python comes without"
)


def missing(config: DataConfig) -> str:
    """Return how to install Python's help text if it is not there; else nothing."""
    return _INSTALL if find_spec("pydoc_data") is None else ""


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
def load_split(test_size: int) -> tuple[Examples, Examples, tuple[int, ...]]:
    """Return training examples, test examples, and how many each topic has to train on.

    An example is 80 characters and, for each of them, the one that follows. Training
    examples are in the order of their topics, those with most text first; test examples
    are spread evenly over the text, the same in every run. A paragraph that several
    topics repeat is kept in the shortest of them only, so that no test example was
    trained on elsewhere. The text differs a little between versions of Python.

    Raises
    ------
    ConfigError
        If nothing would be left to train on, or this Python comes without the text.
    """
    topics = [_windows(text) for text in _distinct(_read()).values()]
    topics.sort(key=len, reverse=True)
    owners = np.repeat(np.arange(len(topics)), [len(topic) for topic in topics])
    codes = np.concatenate(topics)
    if test_size > len(codes) - MIN_PARTITION_SIZE:
        raise ConfigError(
            "data.test_size",
            f"must leave {MIN_PARTITION_SIZE} of pydoc's {len(codes)} examples for "
            f"training, not {test_size}",
        )
    held_out = np.zeros(len(codes), np.bool_)
    held_out[np.arange(test_size) * len(codes) // test_size] = True
    everything = Examples(codes[:, :-1].copy(), codes[:, 1:].copy())
    sizes = np.bincount(owners[~held_out], minlength=len(topics))
    return (
        everything.select(np.flatnonzero(~held_out)),
        everything.select(np.flatnonzero(held_out)),
        tuple(int(size) for size in sizes),
    )


@lru_cache(maxsize=4)
def partition(config: DataConfig, num_partitions: int, seed: int) -> tuple[Array, ...]:
    """Return the indices into the training examples of each device.

    With the natural partition device 0 has the topic with most text, device 1 the next;
    topics beyond the number of devices are left out.

    Raises
    ------
    ConfigError
        If there are more devices than the text suffices for.
    """
    _, _, sizes = load_split(config.test_size)
    return partition_owners(sizes, config, num_partitions, seed, owner="topic")


def _read() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as err:
        raise ConfigError("data.name", _INSTALL) from err
    return dict(topics)


def _distinct(topics: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    kept = {}
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        own = [p for p in dict.fromkeys(topics[name].split("\n\n")) if p not in seen]
        seen.update(own)
        kept[name] = "\n\n".join(own)
    return kept


def _windows(text: str) -> Array:
    codes = encode_ascii(text)
    count = max(len(codes) - 1, 0) // LENGTH
    starts = LENGTH * np.arange(count)
    windows: Array = codes[starts[:, None] + np.arange(LENGTH + 1)]
    return windows
