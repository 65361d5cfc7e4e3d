"""Checks of the MetricRecords in replies, and which of them go together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from flwr.app import MetricRecord, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import arrays_in, metrics_in

from .guard import MAX_WEIGHT

Kind = TypeVar("Kind", bound=Hashable)
Signature = tuple[str, tuple[tuple[str, int], ...]]

_TESTED = "eval|evaluate|evaluation|test|val|valid|validation|server|centralized|global"
_NAMES = {
    name: re.compile(rf"(?:(?:{_TESTED})[-_./ ]?)?(?:{words})", re.IGNORECASE)
    for name, words in {"accuracy": "accuracy|acc", "loss": "loss"}.items()
}


def read_weight(content: RecordDict, key: str, *, required: bool = True) -> float:
    """Return the weight of a reply.

    Parameters
    ----------
    content : RecordDict
        Of the reply.
    key : str
        Metric that is the weight.
    required : bool
        Whether a reply must have one MetricRecord and a weight in it. If not, the
        weight of one that has not is 0.

    Raises
    ------
    CodecError
        If it has none though it must, or its weight is not a number from 0 to
        `MAX_WEIGHT`.
    """
    records = list(metrics_in(content).values())
    if not required and (len(records) != 1 or key not in records[0]):
        return 0.0
    if len(records) != 1:
        raise CodecError(f"reply has {len(records)} MetricRecords, expected one")
    weight = records[0].get(key)
    if not isinstance(weight, (int, float)) or not 0 <= weight <= MAX_WEIGHT:
        raise CodecError(
            f"reply's metric {key!r} is {weight!r:.40}, not a number from 0 to "
            f"{MAX_WEIGHT:g}"
        )
    return float(weight)


def with_weight(content: RecordDict, key: str, weight: float) -> RecordDict:
    """Return a reply's content with another weight, where it has one."""
    changed = content.copy()
    for name, record in metrics_in(content).items():
        if key in record:
            changed[name] = MetricRecord({**record, key: weight})
    return changed


def read_accuracy(content: RecordDict) -> float | None:
    """Return the accuracy in a reply's metrics, if it has one; see `quality`."""
    for record in metrics_in(content).values():
        value = quality(record).get("accuracy")
        if value is not None and math.isfinite(value):
            return value
    return None


def quality(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return how good a model is: ``"accuracy"`` and ``"loss"``, where metrics say so.

    Apps name them in several ways: Flower's own templates have ``eval_acc`` and
    ``accuracy``, Lightning's users ``test_acc``. A metric of exactly the name goes
    first; one of training, such as ``train_acc``, says nothing of the model that is
    sent.
    """
    found = {}
    for name, pattern in _NAMES.items():
        keys = [name, *(key for key in metrics if pattern.fullmatch(key))]
        values = (metrics.get(key) for key in keys)
        numbers = (float(v) for v in values if isinstance(v, (int, float)))
        value = next(numbers, None)
        if value is not None:
            found[name] = value
    return found


def signature(content: RecordDict) -> Signature:
    """Return the name, keys and list lengths of a reply's first MetricRecord.

    Flower aggregates metrics of equal signature only, and stops the run otherwise. A
    reply without one has the empty signature.
    """
    name, record = next(iter(metrics_in(content).items()), ("", MetricRecord()))
    return name, tuple(sorted((key, _length(record, key)) for key in record))


def array_names(content: RecordDict) -> tuple[str, ...]:
    """Return the names of a reply's ArrayRecords.

    Flower's strategies that are given every update stop the run if they differ.
    """
    return tuple(sorted(arrays_in(content)))


def common_signature(signatures: Sequence[Kind]) -> Kind | None:
    """Return the most frequent signature, the earliest of equals; `None` of none."""
    return Counter(signatures).most_common(1)[0][0] if signatures else None


def agreeing(contents: Sequence[RecordDict]) -> list[RecordDict]:
    """Return those contents that have the most frequent signature."""
    signatures = [signature(content) for content in contents]
    common = common_signature(signatures)
    return [c for c, own in zip(contents, signatures, strict=True) if own == common]


def disagreeing(
    contents: Mapping[int, RecordDict],
    kind: Callable[[RecordDict], Hashable] = signature,
) -> dict[int, str]:
    """Return why some of the replies cannot be aggregated with the others, by node.

    Flower ends the run when two replies disagree on metric keys; the most frequent
    signature is kept, and the others are refused.

    Parameters
    ----------
    contents : mapping of int to RecordDict
        By node id.
    kind : callable
        What they are to agree on: `signature`, or `array_names`.
    """
    kinds = {node_id: kind(content) for node_id, content in contents.items()}
    common = common_signature(list(kinds.values()))
    what = "metrics" if kind is signature else "ArrayRecords"
    return {
        node_id: f"{what} {own} differ from the others' {common}"
        for node_id, own in kinds.items()
        if own != common
    }


def _length(record: MetricRecord, key: str) -> int:
    value = record[key]
    return len(value) if isinstance(value, list) else -1
