"""The strategies that are compared."""

from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy
from flwr_caesar.strategies import FedComLoc, Uncompressed

NAMES = ("fedcomloc", "sparse-fedavg", "fedavg")


def build_strategy(name: str, inner: FedAvg, **options: Any) -> Strategy:
    """Return one of the strategies, around FedAvg.

    Parameters
    ----------
    name : str
        One of `NAMES`: FedComLoc-Com, the same without control variates, or whole
        models.
    inner : FedAvg
        Chooses the devices of a round.
    **options
        Of FedComLoc; FedAvg has none of them.
    """
    if name == "fedavg":
        return Uncompressed(inner)
    if name not in NAMES:
        raise ValueError(f"strategy must be one of {', '.join(NAMES)}, not {name!r}")
    return FedComLoc(inner, control=name == "fedcomloc", **options)
