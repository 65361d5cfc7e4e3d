"""Replies in good form with poisoned values, weights and claims, and who met them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.codec.contract.frame import stamp
from flwr_caesar.sync.protocol import (
    UPDATE,
    DownloadHeader,
    UploadHeader,
)
from flwr_caesar.sync.sources import TOKEN_BYTES
from flwr_caesar.sync.wire import opened, sealed
from flwr_caesar.transport import DeviceReport, Plan, frame_to_record
from flwr_caesar.transport.short import pack_mapping

from .app import SHAPES
from .chance import Chance

# For each reply of a hostile node.
POISONS = {
    "poison-huge": 0.15,
    "poison-weight": 0.15,
    "poison-heavy": 0.1,
    "hostile-labels": 0.1,
    "hostile-seconds": 0.1,
    "hostile-part": 0.1,
}
HARMLESS = frozenset({"poison-heavy"})
"""Kinds that are not refused but limited."""

_HUGE = (1e6, 1e12, 1e25)
_HEAVY = 10**14
_WEIGHTS = (1e39, 1e16, math.inf, math.nan, -1.0, -(10**6))
_SECONDS = (1e8, 1e300)
_LABELS: tuple[Any, ...] = ([1] * 5_000, [-1], [1 << 60], "x")
_PARTS: tuple[Any, ...] = ({"x": "x" * 5_000}, [1], "{", {"x": [[1] * 4_000]})
_GUARDS = {
    "length": "times as long as the median",
    "check before commit": "which contributes most",
    "weight": "not a number from 0 to",
    "labels": "the device reports labels",
    "seconds": "seconds",
    "part": "malformed: part",
}


def poisoned(
    chance: Chance, kind: str, header: DownloadHeader, plan: Plan
) -> RecordDict | None:
    """Make up a reply that only its values betray.

    Parameters
    ----------
    chance : Chance
        Decides the values.
    kind : str
        One of `POISONS`.
    header : DownloadHeader
        Of the request.
    plan : Plan
        Of the request.

    Returns
    -------
    RecordDict or None
        The reply; `None` if the request's codec cannot carry such values.
    """
    rng = chance.random
    scale = rng.choice(_HUGE) if kind == "poison-huge" else 0.1
    noise = np.random.default_rng(rng.getrandbits(32))
    arrays = {
        name: (scale * noise.normal(size=shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    try:
        frame, _ = get_codec(dict(plan.upload)).encode(arrays)
    except CodecError:
        return None
    told = UploadHeader(
        header.nonce,
        rng.randbytes(TOKEN_BYTES),
        UPDATE,
        upload_id=chance.new_id(),
        known=(),
    )
    seconds, claims = 1.0, {}
    weight: float = 10
    if kind == "poison-weight":
        weight = rng.choice(_WEIGHTS)
    elif kind == "poison-heavy":
        weight = _HEAVY
    elif kind == "hostile-labels":
        claims = {"labels": rng.choice(_LABELS)}
    elif kind == "hostile-seconds":
        seconds = rng.choice(_SECONDS)
    elif kind == "hostile-part":
        claims = {"part": rng.choice(_PARTS)}
    frame = stamp(frame, lineage=header.lineage, base_version=header.target[0])
    note = opened(DeviceReport(train=seconds).note(told)) + pack_mapping(claims)
    metrics = MetricRecord({"num-examples": weight, "loss": 1.0})
    return RecordDict(
        {"arrays": frame_to_record(frame, sealed(note)), "metrics": metrics}
    )


def guard_of(reason: str) -> str:
    """Return which guard a reply was refused by, told by the reason."""
    for guard, words in _GUARDS.items():
        if words in reason:
            return guard
    return "header and frame"


def limited(weights: Mapping[int, float], most: float) -> dict[int, float]:
    """Return weights of which none is more than a share of three or more."""
    if len(weights) < 3:
        return dict(weights)
    total = math.fsum(weights.values())
    return {
        node: min(weight, (total - weight) * most / (1 - most)) or weight
        for node, weight in weights.items()
    }
