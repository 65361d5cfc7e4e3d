"""Python's reference manual, as it ships with Python for ``help()``: text, by topic."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .config import MIN_PARTITION_SIZE, DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .partition import partition_iid
from .text import encode_ascii

LENGTH = 80


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
    train, _, sizes = load_split(config.test_size)
    natural = config.partition == "natural"
    most = len(train) // MIN_PARTITION_SIZE
    if natural:
        most = next(
            (n for n, size in enumerate(sizes) if size < MIN_PARTITION_SIZE), len(sizes)
        )
    if not 1 <= num_partitions <= most:
        raise ConfigError(
            "federation.num_supernodes",
            f"must be 1 to {most}, not {num_partitions}: each device needs "
            f"{MIN_PARTITION_SIZE} training examples{' of one topic' * natural}",
        )
    if not natural:
        return tuple(partition_iid(len(train), num_partitions, seed=seed))
    ends = np.cumsum(sizes)
    return tuple(
        np.arange(end - size, end)
        for end, size in zip(ends[:num_partitions], sizes, strict=False)
    )


def _read() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as err:
        raise ConfigError(
            "data.name",
            "pydoc needs Python's own help text, pydoc_data, which this Python comes "
            "without",
        ) from err
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
