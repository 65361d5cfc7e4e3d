"""Examples to devices, in numpy.

The semantics of flwr-datasets' ``IidPartitioner`` and ``DirichletPartitioner``, whose
import takes seconds: too long for a process that lives for one message.
"""

from __future__ import annotations

import numpy as np

from .config import MIN_PARTITION_SIZE, DataConfig
from .errors import ConfigError
from .examples import Array


def held_out(counts: Array, test_size: int, whole: str) -> Array:
    """Return how many examples of each series the test has, in proportion to them.

    Parameters
    ----------
    counts : ndarray of int, shape (n,)
        Examples of each series.
    test_size : int
        Examples of the test.
    whole : str
        What the sum of the counts is called, with its owner.

    Raises
    ------
    ConfigError
        If less than half would be left to train on.
    """
    total = int(counts.sum())
    if test_size > total // 2:
        raise ConfigError(
            "data.test_size",
            f"must leave half of {whole} for training: at most {total // 2}, not "
            f"{test_size}",
        )
    found: Array = np.diff(np.cumsum(counts) * test_size // total, prepend=0)
    return found


def partition_labels(
    labels: Array, config: DataConfig, num_partitions: int, seed: int
) -> tuple[Array, ...]:
    """Return the indices of each device's examples, of those with these labels.

    A device has 10 examples at least, or its equal share if that is less.

    Raises
    ------
    ConfigError
        If there are more devices than examples.
    """
    most = len(labels)
    if not 1 <= num_partitions <= most:
        raise ConfigError(
            "federation.num_supernodes",
            f"must be 1 to {most}, not {num_partitions}: each device needs one of "
            f"{most} training examples",
        )
    if config.partition == "iid":
        return tuple(partition_iid(most, num_partitions, seed=seed))
    return tuple(
        partition_dirichlet(
            labels,
            num_partitions,
            alpha=config.alpha,
            min_size=min(MIN_PARTITION_SIZE, most // num_partitions),
            seed=seed,
        )
    )


def partition_owners(
    sizes: tuple[int, ...],
    config: DataConfig,
    num_partitions: int,
    seed: int,
    *,
    owner: str,
) -> tuple[Array, ...]:
    """Return the indices of each device's examples, of those in the owners' order.

    With the natural partition device 0 has the first owner's examples, device 1 the
    next; owners beyond the number of devices are left out.

    Parameters
    ----------
    sizes : tuple of int
        Examples of each owner; an owner behind one with fewer than 10 gets no device.
    owner : str
        What an owner is called, for the error.

    Raises
    ------
    ConfigError
        If there are more devices than the examples suffice for.
    """
    natural = config.partition == "natural"
    most = sum(sizes) // MIN_PARTITION_SIZE
    if natural:
        most = next(
            (n for n, size in enumerate(sizes) if size < MIN_PARTITION_SIZE), len(sizes)
        )
    if not 1 <= num_partitions <= most:
        raise ConfigError(
            "federation.num_supernodes",
            f"must be 1 to {most}, not {num_partitions}: each device needs "
            f"{MIN_PARTITION_SIZE} training examples{f' of one {owner}' * natural}",
        )
    if not natural:
        return tuple(partition_iid(sum(sizes), num_partitions, seed=seed))
    ends = np.cumsum(sizes)
    return tuple(
        np.arange(end - size, end)
        for end, size in zip(ends[:num_partitions], sizes, strict=False)
    )


def partition_iid(n: int, num_partitions: int, *, seed: int) -> list[Array]:
    """Cut a random order of ``range(n)`` into parts of equal size, within one."""
    order = np.random.default_rng(seed).permutation(n)
    return np.array_split(order, num_partitions)


def partition_dirichlet(
    labels: Array, num_partitions: int, *, alpha: float, min_size: int, seed: int
) -> list[Array]:
    """Spread each label over the parts in proportions drawn from ``Dirichlet(alpha)``.

    Parts that come out smaller than `min_size` are filled up with random examples of
    whichever part is the largest, so that any `alpha` gives a usable federation.

    Parameters
    ----------
    labels : ndarray
        One label for each example.
    num_partitions : int
        Number of parts.
    alpha : float
        Concentration, above 0. Small: few labels a device; large: nearly IID.
    min_size : int
        Fewest examples of a part; ``num_partitions * min_size <= len(labels)``.
    seed : int
        Names one partition.

    Returns
    -------
    list of ndarray
        Indices of each part; every example is in exactly one.

    References
    ----------
    Hsu et al. (2019), arXiv:1909.06335.
    """
    rng = np.random.default_rng(seed)
    pieces: list[list[Array]] = [[] for _ in range(num_partitions)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_partitions, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for own, piece in zip(pieces, np.split(members, cuts), strict=True):
            own.append(piece)
    parts = [rng.permutation(np.concatenate(own)) for own in pieces]
    _fill_up(parts, min_size)
    return parts


def _fill_up(parts: list[Array], min_size: int) -> None:
    for poor in range(len(parts)):
        while (missing := min_size - len(parts[poor])) > 0:
            rich = max(range(len(parts)), key=lambda i: len(parts[i]))
            spare = min(missing, max(1, (len(parts[rich]) - min_size) // 2))
            parts[poor] = np.concatenate([parts[poor], parts[rich][:spare]])
            parts[rich] = parts[rich][spare:]
