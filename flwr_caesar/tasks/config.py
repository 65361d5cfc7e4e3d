"""Which data a federation trains on, and how it is spread over the devices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checks import get_choice, get_int, get_text
from .errors import ConfigError

DATASETS = (
    "mnist5k",
    "fashion_mnist",
    "activity",
    "pydoc",
    "shakespeare_roles",
    "cifar10",
    "femnist",
    "shakespeare",
)
PARTITIONS = ("iid", "dirichlet", "natural")
NATURAL = ("activity", "pydoc", "shakespeare_roles", "femnist", "shakespeare")
UNLABELLED = ("pydoc", "shakespeare_roles")
IN_A_FOLDER = ("fashion_mnist",)
PLAYS = ("all", "even", "odd")
MIN_PARTITION_SIZE = 10


@dataclass(frozen=True)
class DataConfig:
    """Checked form of the ``data`` group.

    Parameters
    ----------
    name : str
        The data set, one of `DATASETS`.
    partition : {"iid", "dirichlet", "natural"}
        How training examples are spread: at random, with skewed labels, or by the
        topic, writer, person or role they come from.
    alpha : float
        Concentration of the Dirichlet distribution; 0 for other partitions, which
        have none.
    batch_size : int
        Examples in one local step.
    test_size : int
        Examples held out for the server's test.
    folder : str
        Where the data set's files are; empty for those that need no folder.
    plays : {"all", "even", "odd"}
        Which of Shakespeare's plays, by their place in the order of their names.
    """

    name: str
    partition: str
    alpha: float
    batch_size: int
    test_size: int
    folder: str = ""
    plays: str = "all"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DataConfig:
        """Check a nested mapping with the keys of ``conf/data``.

        Raises
        ------
        ConfigError
            If a value is missing or cannot be used.
        """
        name = get_choice(config, "data", "name", DATASETS)
        partition = config.get("partition")
        if not isinstance(partition, Mapping):
            raise ConfigError("data.partition", "must have the keys kind and alpha")
        kind = get_choice(partition, "data.partition", "kind", PARTITIONS)
        if kind == "natural" and name not in NATURAL:
            raise ConfigError(
                "data.partition.kind",
                f"{name} has no natural owners of its examples; use iid or dirichlet "
                f"(natural is for {', '.join(NATURAL)})",
            )
        if kind == "dirichlet" and name in UNLABELLED:
            raise ConfigError(
                "data.partition.kind",
                f"{name} has no label for each example; use natural or iid",
            )
        alpha = _alpha(partition.get("alpha")) if kind == "dirichlet" else 0.0
        return cls(
            name=name,
            partition=kind,
            alpha=alpha,
            batch_size=get_int(config, "data", "batch_size"),
            test_size=get_int(config, "data", "test_size"),
            folder=get_text(config, "data", "folder") if name in IN_A_FOLDER else "",
            plays=get_choice(config, "data", "plays", PLAYS)
            if name == "shakespeare_roles"
            else "all",
        )


def _alpha(value: Any) -> float:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not 0 < value < math.inf:
        raise ConfigError(
            "data.partition.alpha", f"must be a number above 0, not {value!r}"
        )
    return float(value)
