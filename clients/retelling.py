"""What a reply says beside its update, kept so that the same can be said again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import MetricRecord, RecordDict

from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import DeviceReport

_Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Told:
    """The metrics of the app, and what a method's part and the device reported.

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
    """

    metrics: _Metrics = field(default_factory=dict)
    part: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, content: RecordDict, part: Mapping[str, Any], labels: Iterable[int]
    ) -> Told:
        """Take it from a reply."""
        metrics = {name: dict(m) for name, m in content.metric_records.items()}
        return cls(metrics, part, tuple(labels))

    @classmethod
    def beside(cls, state: DeviceState, upload_id: int) -> Told:
        """Return what was told with an upload that is kept; nothing if none was."""
        for pending in state.pending:
            if pending.upload_id == upload_id and pending.told:
                told = json.loads(pending.told)
                return cls(told["metrics"], told["part"], tuple(told["labels"]))
        return cls()

    def into(self, state: DeviceState) -> DeviceState:
        """Keep it with the newest upload of a state."""
        *older, newest = state.pending
        text = json.dumps(
            {"metrics": self.metrics, "part": self.part, "labels": self.labels}
        )
        return replace(state, pending=(*older, replace(newest, told=text)))

    def report(self) -> DeviceReport:
        """Return the report; its times are those of saying it again, none."""
        return DeviceReport(labels=self.labels, part=self.part)

    def records(self) -> dict[str, MetricRecord]:
        """Return the metrics as the app made them."""
        return {name: MetricRecord(dict(m)) for name, m in self.metrics.items()}
