"""What a device trains on, and what the server tests with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import manual, mnist5k
from .config import DataConfig
from .errors import ConfigError
from .examples import Examples


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
    if config.name == "mnist5k":
        train, _ = mnist5k.load_split(config.test_size)
        parts = mnist5k.partition(config, num_partitions, seed)
        return train.select(parts[partition_id])
    if config.name == "pydoc":
        parts = manual.partition(config, num_partitions, seed)
        return manual.load_split(config.test_size)[0].select(parts[partition_id])
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
    if config.name == "mnist5k":
        return mnist5k.load_split(config.test_size)[1]
    if config.name == "pydoc":
        return manual.load_split(config.test_size)[1]
    from .hub import load_hub_test

    return load_hub_test(config)
