"""What a device trains on, and what the server tests with."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from . import activity, fashion_mnist, manual, mnist5k, plays
from .config import DataConfig
from .errors import ConfigError
from .examples import Examples


class Source(Protocol):
    """A module that has a data set whose files lie on this machine."""

    def missing(self, config: DataConfig) -> str:
        """Return how to install what is missing; empty if nothing is."""

    def load_partition(
        self, config: DataConfig, partition_id: int, num_partitions: int, seed: int
    ) -> Examples:
        """Return the training examples of one device."""

    def load_test(self, config: DataConfig) -> Examples:
        """Return the examples held out for the server."""


LOCAL: Mapping[str, Source] = {
    "mnist5k": mnist5k,
    "fashion_mnist": fashion_mnist,
    "activity": activity,
    "pydoc": manual,
    "shakespeare_roles": plays,
}


def missing(data_cfg: Mapping[str, Any]) -> str:
    """Return how to install what this machine lacks for the data; empty if nothing.

    Raises
    ------
    ConfigError
        If a setting cannot be used.
    """
    config = DataConfig.of(data_cfg)
    if config.name in LOCAL:
        return LOCAL[config.name].missing(config)
    if find_spec("flwr_datasets") is None:
        return f"{config.name} needs flwr-datasets: pip install 'flwr-caesar[data]'"
    return ""


def load_partition(
    data_cfg: Mapping[str, Any], partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return the training examples of one device.

    Parameters
    ----------
    data_cfg : mapping
        The ``data`` group of the configuration; see ``conf/data``.
    partition_id : int
        Which device, from 0.
    num_partitions : int
        Number of devices.
    seed : int
        Names one partition; the test examples do not depend on it.

    Returns
    -------
    `Examples`
        Read-only; what they are cut from is cached by the process.

    Raises
    ------
    ConfigError
        If a setting cannot be used, or a package or download is missing.
    """
    config = DataConfig.of(data_cfg)
    if not 0 <= partition_id < num_partitions:
        raise ConfigError(
            "federation.num_supernodes",
            f"is {num_partitions}, so there is no partition {partition_id}",
        )
    if config.name in LOCAL:
        source = LOCAL[config.name]
        return source.load_partition(config, partition_id, num_partitions, seed)
    from .hub import load_hub_partition

    return load_hub_partition(config, partition_id, num_partitions, seed)


def load_test(data_cfg: Mapping[str, Any]) -> Examples:
    """Return the examples held out for the server: the same in every run.

    Raises
    ------
    ConfigError
        If a setting cannot be used, or a package or download is missing.
    """
    config = DataConfig.of(data_cfg)
    if config.name in LOCAL:
        return LOCAL[config.name].load_test(config)
    from .hub import load_hub_test

    return load_hub_test(config)
