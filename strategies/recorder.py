"""What each phase cost, as it happens."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING

from flwr_caesar.flower import log
from flwr_caesar.records import (
    DeviceRecord,
    PhaseProgress,
    RoundRecord,
    as_reason,
)
from flwr_caesar.results.amounts import amount
from flwr_caesar.results.history import History
from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import arrays_nbytes

from .charge import LATE, Charger
from .metrics import read_accuracy
from .phase import Phase, Reply

NOT_ANSWERED = "no reply before the round closed"
_LOOK = 1.0


class Recorder:
    """Writes down what each device of a phase cost, and why it was not used.

    Parameters
    ----------
    sinks : sequence of callable
        Called with the record of each phase.
    charger : Charger, optional
        Charges the devices by a virtual clock.
    on_progress : callable, optional
        Told how far a phase is.

    Attributes
    ----------
    history : History
        Every phase so far.
    """

    def __init__(
        self,
        sinks: Sequence[Callable[[RoundRecord], None]],
        charger: Charger | None,
        on_progress: Callable[[PhaseProgress], None] | None = None,
    ) -> None:
        self.on_progress = on_progress
        self._told = 0.0
        self.history = History()
        self._sinks = sinks
        self._charger = charger

    def opened(self, phase: Phase) -> None:
        """Begin with nobody having answered."""
        phase.records = {
            node_id: DeviceRecord(
                node_id,
                request.bytes_down,
                batch_size=request.work.batch_size,
                local_steps=request.work.local_steps,
                dropped=NOT_ANSWERED,
                raw_bytes_down=request.raw_bytes,
            )
            for node_id, request in phase.requests.items()
        }
        self._tell(phase, at_once=True)

    def is_expected(self, phase: Phase, node_id: int) -> bool:
        """Whether a node was asked and has not answered yet."""
        record = phase.records.get(node_id)
        return record is not None and record.dropped == NOT_ANSWERED

    def arrived(
        self, phase: Phase, node_id: int, *, seconds: float, bytes_up: int
    ) -> None:
        """Write down when a reply came, and how large it is."""
        record = replace(
            phase.records[node_id], seconds_round_trip=seconds, bytes_up=bytes_up
        )
        phase.records[node_id] = self._charged(phase, record, 0.0)
        self._tell(phase)

    def read(self, phase: Phase, reply: Reply) -> bool:
        """Write down what a usable reply says; return False if it is virtually late."""
        request = phase.requests[reply.node_id]
        report = reply.report
        self.measured(phase, reply.node_id, report.telemetry)
        samples = request.work.samples(reply.weight, is_train=phase.is_train)
        samples *= taken_of(report.telemetry)
        record = self._charged(phase, phase.records[reply.node_id], samples)
        phase.records[reply.node_id] = record = replace(
            record,
            dropped="",
            raw_bytes_up=arrays_nbytes(reply.content)
            + (request.model_bytes if phase.is_train else 0),
            examples=reply.weight,
            accuracy=read_accuracy(reply.content),
            seconds_train=report.train,
            seconds_encode=report.encode,
            seconds_decode=report.decode,
            seconds_start=report.start,
        )
        if self._charger and self._charger.is_late(record):
            self.refused(phase, reply.node_id, LATE)
            return False
        return True

    def measured(self, phase: Phase, node_id: int, telemetry: Telemetry | None) -> None:
        """Write down what a device's board measured, if it did."""
        if telemetry is not None:
            record = phase.records[node_id]
            phase.records[node_id] = replace(record, telemetry=telemetry)

    def processed(self, phase: Phase, node_id: int, seconds: float) -> None:
        """Write down what a reply cost the server."""
        phase.records[node_id] = replace(phase.records[node_id], seconds_server=seconds)

    def refused(self, phase: Phase, node_id: int, reason: str) -> str:
        """Write down that a reply is not used, and why; return the reason as kept."""
        kept = as_reason(reason)
        log(WARNING, "Dropped the reply of node %d: %s", node_id, kept)
        phase.records[node_id] = replace(
            phase.records[node_id], dropped=kept, examples=0.0
        )
        return kept

    def timed(self, phase: Phase) -> float | None:
        """Set how long each device waits for the end; return it if it is virtual."""
        records = phase.records
        ended = {n: d for n, d in records.items() if d.seconds_round_trip > 0}
        if self._charger:
            ends = {n: d.virtual_seconds for n, d in ended.items()}
            end = self._charger.end(ended.values())
        else:
            ends = {n: d.seconds_round_trip for n, d in ended.items()}
            end = max(ends.values(), default=0.0)
        for node_id, own in ends.items():
            records[node_id] = replace(records[node_id], waiting=max(end - own, 0.0))
        return end if self._charger else None

    def closed(
        self, phase: Phase, *, virtual_seconds: float | None, seconds_busy: float
    ) -> None:
        """Add the phase to the history."""
        if not phase.records:
            return
        self._tell(phase, at_once=True)
        for device in phase.records.values():
            if device.dropped == NOT_ANSWERED:
                log(WARNING, "Node %d: %s", device.node_id, NOT_ANSWERED)
        record = RoundRecord(
            phase.server_round,
            phase.kind,
            time.monotonic() - phase.started,
            tuple(phase.records.values()),
            virtual_seconds,
            phase.seconds_packing + seconds_busy,
        )
        log(
            INFO,
            "%s: used %d of %d replies, %s down, %s up",
            phase.kind,
            len(record.devices) - len(record.dropped),
            len(record.devices),
            amount(record.bytes_down),
            amount(record.bytes_up),
        )
        self.history.append(record)
        for sink in self._sinks:
            sink(record)

    def tested(self, server_round: int, metrics: Mapping[str, float]) -> None:
        """Tell the sinks that want it how good the model is."""
        for sink in self._sinks:
            take = getattr(sink, "on_metrics", None)
            if callable(take):
                take(server_round, metrics)

    def _tell(self, phase: Phase, *, at_once: bool = False) -> None:
        """Say how far a phase is, not more often than somebody would look."""
        now = time.monotonic()
        if self.on_progress is None or not phase.records:
            return
        if not (at_once or now - self._told >= _LOOK):
            return
        self._told = now
        came = [d for d in phase.records.values() if d.seconds_round_trip > 0]
        refused = Counter(d.dropped for d in came if d.dropped)
        del refused[NOT_ANSWERED]  # it has, and is not read yet
        self.on_progress(
            PhaseProgress(
                phase.server_round, phase.kind, len(phase.records), len(came), refused
            )
        )

    def _charged(
        self, phase: Phase, record: DeviceRecord, samples: float
    ) -> DeviceRecord:
        if self._charger is None:
            return record
        return self._charger.charge(phase.server_round, record, samples)


def taken_of(telemetry: Telemetry | None) -> float:
    """Return the part of the steps asked for that a device took, in ``[0, 1]``."""
    if telemetry is None or telemetry.steps_fraction is None:
        return 1.0
    return telemetry.steps_fraction
