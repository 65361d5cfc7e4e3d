"""Data sets that flwr-datasets downloads from a hub and partitions.

Everything here imports flwr-datasets inside functions: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .config import MIN_PARTITION_SIZE, DataConfig
from .errors import ConfigError
from .examples import Array, Examples
from .text import encode_text

_HELD_OUT_SEED = 80_000


@dataclass(frozen=True)
class HubData:
    """Where a data set is and what its columns mean.

    Parameters
    ----------
    path : str
        Name on the hub.
    x, y : str
        Columns of inputs and labels. Inputs that are images become float32
        ``(channels, height, width)``, ``(pixel / 255 - mean) / std``; inputs that
        are text become character codes.
    owner : str
        Column that names whose example it is; empty if there is none.
    has_test : bool
        Whether the hub has a test split; else examples of the training split are
        held out, the same in every run.
    mean, std : tuple of float
        Per channel, of the pixels in [0, 1]; empty for text.
    length : int
        Characters in one input; 0 for images.
    """

    path: str
    x: str
    y: str
    owner: str = ""
    has_test: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    length: int = 0


HUB: Mapping[str, HubData] = {
    "cifar10": HubData(
        path="uoft-cs/cifar10",
        x="img",
        y="label",
        has_test=True,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "femnist": HubData(
        path="flwrlabs/femnist",
        x="image",
        y="character",
        owner="writer_id",
        mean=(0.5,),
        std=(0.5,),
    ),
    "shakespeare": HubData(
        path="flwrlabs/shakespeare", x="x", y="y", owner="character_id", length=80
    ),
}


@lru_cache(maxsize=4)
def load_hub_partition(
    config: DataConfig, partition_id: int, num_partitions: int, seed: int
) -> Examples:
    """Return one device's training examples.

    With the natural partition a device has one owner's examples, in the order of the
    owners' names; owners beyond `num_partitions` are left out.

    Raises
    ------
    ConfigError
        If the data cannot be loaded or partitioned so.
    """
    federated = _federated(config, num_partitions, seed)
    try:
        available = federated.partitioners["train"].num_partitions
        if num_partitions > available:
            raise ConfigError(
                "federation.num_supernodes",
                f"must be at most {available}, the number of natural partitions of "
                f"{config.name}, not {num_partitions}",
            )
        rows = federated.load_partition(partition_id, "train")
    except ConfigError:
        raise
    except ValueError as err:
        key = "partition.alpha" if config.partition == "dirichlet" else "partition.kind"
        raise ConfigError(f"data.{key}", f"cannot partition so: {err}") from err
    return _to_examples(HUB[config.name], rows)


@lru_cache(maxsize=1)
def load_hub_test(config: DataConfig) -> Examples:
    """Return the examples held out for the server.

    Raises
    ------
    ConfigError
        If the data cannot be loaded.
    """
    federated = _federated(config, 1, 0)
    return _to_examples(HUB[config.name], federated.load_split("test"))


@lru_cache(maxsize=2)
def _federated(config: DataConfig, num_partitions: int, seed: int) -> Any:
    try:
        from flwr_datasets import FederatedDataset
    except ImportError as err:
        raise ConfigError(
            "data.name",
            f"{config.name} needs flwr-datasets: pip install 'flwr-caesar[data]'",
        ) from err
    source = HUB[config.name]

    def hold_out(splits: Any) -> Any:
        return _hold_out(splits, config, source, seed)

    federated = FederatedDataset(
        dataset=source.path,
        preprocessor=hold_out,
        partitioners={"train": _partitioner(config, source, num_partitions, seed)},
        shuffle=False,
    )
    try:
        _ = federated.partitioners
    except ConfigError:
        raise
    except Exception as err:
        raise ConfigError(
            "data.name", f"{config.name} cannot be loaded from {source.path}: {err}"
        ) from err
    return federated


def _hold_out(splits: Any, config: DataConfig, source: HubData, seed: int) -> Any:
    name = "test" if source.has_test else "train"
    count = len(splits[name])
    if config.test_size > count - (not source.has_test) * MIN_PARTITION_SIZE:
        raise ConfigError(
            "data.test_size",
            f"{config.test_size} cannot be taken from the {count} examples of "
            f"{config.name}'s {name} split",
        )
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(count)
    test = splits[name].select(np.sort(order[: config.test_size]))
    train = splits["train"]
    if not source.has_test:
        train = train.select(np.sort(order[config.test_size :]))
    return type(splits)(train=train.shuffle(seed=seed), test=test)


def _partitioner(
    config: DataConfig, source: HubData, num_partitions: int, seed: int
) -> Any:
    from flwr_datasets import partitioner

    if config.partition == "natural":
        return partitioner.NaturalIdPartitioner(partition_by=source.owner)
    if config.partition == "iid":
        return partitioner.IidPartitioner(num_partitions=num_partitions)
    return partitioner.DirichletPartitioner(
        num_partitions=num_partitions,
        partition_by=source.y,
        alpha=config.alpha,
        min_partition_size=MIN_PARTITION_SIZE,
        seed=seed,
    )


def _to_examples(source: HubData, rows: Any) -> Examples:
    if source.length:
        x = encode_text(list(rows[source.x]), source.length)
        return Examples(x, encode_text(list(rows[source.y]), 1)[:, 0])
    x = _to_pixels([np.asarray(image, np.uint8) for image in rows[source.x]], source)
    return Examples(x, np.asarray(rows[source.y], np.int64))


def _to_pixels(images: list[Array], source: HubData) -> Array:
    pixels = np.stack(images).astype(np.float32) / np.float32(255)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 3 else pixels
    mean, std = np.array(source.mean, np.float32), np.array(source.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))
