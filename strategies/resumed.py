"""What a run starts from and, resumed, returns."""

from __future__ import annotations

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Result

from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.transport import widened_record


def shifted(result: Result, before: int) -> Result:
    """Count the rounds of a resumed run from the first."""
    for name in (
        "train_metrics_clientapp",
        "evaluate_metrics_clientapp",
        "evaluate_metrics_serverapp",
    ):
        metrics = getattr(result, name)
        setattr(result, name, {before + done: m for done, m in metrics.items()})
    return result


def first_record(initial: ArrayRecord, given: Arrays, begun: Arrays) -> ArrayRecord:
    """Return the model to start from; that which was given is not held twice."""
    is_same = begun is given and all(a.dtype.name != "bfloat16" for a in given.values())
    return initial if is_same else widened_record(begun)
