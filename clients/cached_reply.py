"""What a reply says beside its update, kept so that the same can be said again."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from logging import WARNING
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flwr_caesar.flower import arrays_in, configs_in, log, metrics_in
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import Abilities, DeviceReport

MAX_ARRAY_BYTES = 1 << 20
"""Most bytes that a reply's other ArrayRecords may have to be kept."""

_BYTES = "base64"


@frozen
class CachedReply:
    """The records of the app, and what a method's part and the device reported.

    A device whose reply was lost answers the same request with the same upload; without
    these the server could not use it.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Of the app, by record name.
    part : mapping
        See `flwr_caesar.transport.DeviceReport`.
    labels : tuple of int
        Likewise.
    configs : mapping of str to ConfigRecord
        Of the app, by record name.
    arrays : mapping of str to ArrayRecord
        Likewise, without the upload, as they were sent.
    can : Abilities, optional
        What the device said it can.
    """

    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    part: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    configs: Mapping[str, ConfigRecord] = field(default_factory=dict)
    arrays: Mapping[str, ArrayRecord] = field(default_factory=dict)
    can: Abilities | None = None

    @classmethod
    def of(
        cls,
        content: RecordDict,
        part: Mapping[str, Any],
        labels: Iterable[int],
        *,
        upload: str = "",
        can: Abilities | None = None,
    ) -> CachedReply:
        """Take it from a reply, whose ArrayRecord `upload` is kept elsewhere."""
        return cls(
            {name: dict(record) for name, record in metrics_in(content).items()},
            part,
            tuple(labels),
            configs_in(content),
            {n: r for n, r in arrays_in(content).items() if n != upload},
            can,
        )

    @classmethod
    def beside(cls, state: DeviceState, upload_id: int) -> CachedReply:
        """Return what was sent with an upload that is kept; nothing if none was."""
        for pending in state.pending:
            if pending.upload_id == upload_id and pending.told:
                kept = json.loads(pending.told)
                return cls(
                    kept["metrics"],
                    kept["part"],
                    tuple(kept["labels"]),
                    # States of before these were kept have none.
                    {n: _config(c) for n, c in kept.get("configs", {}).items()},
                    {n: _arrays(a) for n, a in kept.get("arrays", {}).items()},
                    Abilities.of(kept["can"]) if "can" in kept else None,
                )
        return cls()

    def into(self, state: DeviceState) -> DeviceState:
        """Keep it with the newest upload of a state.

        ArrayRecords of more than `MAX_ARRAY_BYTES` together are not kept, with a line
        in the log: the answer to a repeated request is then without them.
        """
        *older, newest = state.pending
        kept: dict[str, Any] = {
            "metrics": self.metrics,
            "part": self.part,
            "labels": self.labels,
        }
        if self.configs:
            kept["configs"] = {
                name: {key: _plain(value) for key, value in config.items()}
                for name, config in self.configs.items()
            }
        if self.can:
            kept["can"] = self.can.to_mapping()
        size = sum(len(a.data) for r in self.arrays.values() for a in r.values())
        if size > MAX_ARRAY_BYTES:
            log(
                WARNING,
                "flwr-caesar: the reply's other ArrayRecords have %d bytes, %d are "
                "kept at most: if this reply is lost, they are not sent again",
                size,
                MAX_ARRAY_BYTES,
            )
        elif self.arrays:
            kept["arrays"] = {
                name: [
                    [key, a.dtype, list(a.shape), a.stype, _text(a.data)]
                    for key, a in record.items()
                ]
                for name, record in self.arrays.items()
            }
        text = json.dumps(kept)
        return replace(state, pending=(*older, replace(newest, told=text)))

    def report(self) -> DeviceReport:
        """Return the report; its times are those of saying it again, none."""
        return DeviceReport(labels=self.labels, part=self.part, can=self.can)

    def records(self) -> dict[str, MetricRecord | ConfigRecord | ArrayRecord]:
        """Return the records as the app made them."""
        metrics = {name: MetricRecord(dict(m)) for name, m in self.metrics.items()}
        return {**metrics, **self.configs, **self.arrays}


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _plain(value: Any) -> Any:
    """Return a value of a ConfigRecord as JSON has it: bytes as a mapping."""
    if isinstance(value, bytes):
        return {_BYTES: _text(value)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _value(plain: Any) -> Any:
    if isinstance(plain, dict):
        return b64decode(plain[_BYTES])
    return [_value(item) for item in plain] if isinstance(plain, list) else plain


def _config(plain: Mapping[str, Any]) -> ConfigRecord:
    return ConfigRecord({key: _value(value) for key, value in plain.items()})


def _arrays(plain: Iterable[Any]) -> ArrayRecord:
    return ArrayRecord(
        {
            key: Array(dtype, tuple(shape), stype, b64decode(data))
            for key, dtype, shape, stype, data in plain
        }
    )
