"""Checks of the MetricRecords in replies, and which of them go together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from flwr.app import MetricRecord, RecordDict

from flwr_caesar.codec import CodecError

Signature = tuple[str, tuple[tuple[str, int], ...]]


def read_weight(content: RecordDict, key: str) -> float:
    """Return the weight of a reply.

    Raises
    ------
    CodecError
        If there is not exactly one MetricRecord, or its `key` is not a finite number
        above zero.
    """
    records = list(content.metric_records.values())
    if len(records) != 1:
        raise CodecError(f"reply has {len(records)} MetricRecords, expected one")
    weight = records[0].get(key)
    if not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        raise CodecError(f"reply's metric {key!r} is {weight!r}, not a positive number")
    return float(weight)


def read_accuracy(content: RecordDict) -> float | None:
    """Return the metric ``"accuracy"`` of a reply, if it has one and it is a number."""
    for record in content.metric_records.values():
        value = record.get("accuracy")
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    return None


def signature(content: RecordDict) -> Signature:
    """Return the name, keys and list lengths of a reply's only MetricRecord.

    Flower aggregates metrics of equal signature only, and stops the run otherwise.
    """
    name, record = next(iter(content.metric_records.items()))
    return name, tuple(sorted((key, _length(record, key)) for key in record))


def common_signature(signatures: Sequence[Signature]) -> Signature | None:
    """Return the most frequent signature, the earliest of equals; `None` of none."""
    return Counter(signatures).most_common(1)[0][0] if signatures else None


def _length(record: MetricRecord, key: str) -> int:
    value = record[key]
    return len(value) if isinstance(value, list) else -1
