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


class FirstModel:
    """The model that rounds begin with, for no longer than it is of use.

    Flower's loop holds the record that it begins with until all rounds are over. So it
    is lent one of its own, which is emptied once there is a newer model. Nobody else
    is shown that record, but another one of the same arrays.
    """

    def __init__(self) -> None:
        self._lent: ArrayRecord | None = None

    def lend(self, first: ArrayRecord) -> ArrayRecord:
        """Return the record for Flower's loop to begin with."""
        self._lent = ArrayRecord(dict(first.items()))
        return self._lent

    def shown(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return what others may keep in place of a record that may be lent."""
        return ArrayRecord(dict(arrays.items())) if arrays is self._lent else arrays

    def replaced(self, *, by: ArrayRecord | None) -> None:
        """Learn with which model the loop goes on; `None`: with the one that it has."""
        if self._lent is not None and by is not None:
            self._lent.clear()
            self._lent = None
