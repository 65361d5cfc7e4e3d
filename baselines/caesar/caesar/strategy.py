"""The strategies that are compared."""

from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy
from flwr_caesar.strategies import QSGD, Caesar, Uncompressed

# Caesar as published; with one ratio for all devices, what it is to be better than; and
# with a codec that is not the paper's.
_CAESARS: dict[str, dict[str, Any]] = {
    "caesar": {"codec": "paper"},
    "uniform": {
        "codec": "paper",
        "staleness_aware": False,
        "importance_aware": False,
        "ask_labels": False,
    },
    "lattice": {"codec": "lattice", "first_bits": 0},
}
_OTHERS: dict[str, Callable[..., Strategy]] = {"fedavg": Uncompressed, "qsgd": QSGD}
NAMES = (*_OTHERS, *_CAESARS)


def build_strategy(
    name: str, inner: FedAvg, *, local_steps: int, max_batch: int, **options: Any
) -> Strategy:
    """Return one of the strategies, around FedAvg.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    inner : FedAvg
        Chooses the devices of a round.
    local_steps, max_batch : int
        Steps of a round and batch size of the fastest device: by these Caesar gives
        slower devices smaller batches.
    **options
        Of every strategy, such as its clock.
    """
    if name in _OTHERS:
        return _OTHERS[name](inner, **options)
    if name not in _CAESARS:
        raise ValueError(f"strategy must be one of {', '.join(NAMES)}, not {name!r}")
    return Caesar(
        inner, local_steps=local_steps, max_batch=max_batch, **_CAESARS[name], **options
    )
