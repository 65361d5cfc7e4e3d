"""The server's half of a conversation that is recorded: pure sessions, no process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from flwr_caesar.codec import (
    CodecState,
    Layout,
    apply,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.strategies.fitted import Fitting
from flwr_caesar.strategies.frame_messages import packed
from flwr_caesar.strategies.method import ServerMethod
from flwr_caesar.strategies.phase import Device, DevicePlan
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.part import completed
from flwr_caesar.sync.protocol import UPDATE
from flwr_caesar.sync.server import ServerSession, Verdict
from flwr_caesar.sync.state import MODEL_PAYLOAD
from flwr_caesar.transport import (
    DeviceReport,
    arrays_to_record,
    record_to_frame,
    without_note,
)

Arrays = dict[str, np.ndarray[Any, Any]]
RECORD = "arrays"


def numbers(seed: str) -> Iterator[bytes]:
    """Yield 32 bytes again and again that look random."""
    count = 0
    while True:
        count += 1
        yield hashlib.sha256(f"{seed}/{count}".encode()).digest()


class Server:
    """A server that asks nodes and averages their uploads.

    Parameters
    ----------
    model : mapping of str to ndarray
        To begin with.
    method : ServerMethod
        How models and updates travel.
    seed : str
        Of its numbers.
    """

    def __init__(self, model: Arrays, method: ServerMethod, seed: str) -> None:
        self.method = method
        self.ledger = MemoryLedger()
        self._numbers = numbers(seed)
        self._now = 1_700_000_000_000_000_000
        self.model = dict(method.downlink.begin(model))
        self._version = method.downlink.publish(self.model, 0)
        self._fitting = Fitting(method)
        self._plans: dict[int, DevicePlan] = {}
        self._replies: dict[int, Arrays] = {}
        self.round = 0
        self.start()

    def start(self, ledger: MemoryLedger | None = None) -> None:
        """Begin as a new process, from a backup or from where the last one was."""
        self._now += 1_000_000_000
        self.ledger = ledger or self.ledger
        self.session = ServerSession(
            self.ledger,
            now=self._now,
            new_id=lambda: int.from_bytes(next(self._numbers)[:8]),
            initial=self._version,
        )

    @property
    def lineage(self) -> int:
        return self.session.head.lineage

    @property
    def held(self) -> Arrays:
        """What devices hold of the model."""
        return dict(self.method.downlink.held(self.model))

    def ask(
        self,
        nodes: list[int],
        *,
        train: bool = True,
        plans: Mapping[int, DevicePlan] | None = None,
        config: Mapping[str, Any] | None = None,
        max_residual_age: int = 0,
    ) -> dict[int, RecordDict]:
        """Open a phase; return the content of the message to each node."""
        self.round += train
        downlink = self.method.downlink
        headers = self.session.open_phase(
            nodes, train=train, changes_from=downlink.bases, newcomer=downlink.newcomer
        )
        self._replies = {}
        usual = DevicePlan(self.method.upload_for(Layout.of(self.model)))
        self._plans = {node: (plans or {}).get(node, usual) for node in nodes}
        plain = RecordDict(
            {
                RECORD: arrays_to_record(self.model),
                "config": ConfigRecord({"server-round": self.round, **(config or {})}),
            }
        )
        asked = {}
        for node, header in headers.items():
            device = Device(node, header, self.session.row(node))
            fitted = self._fitting.fit(
                device, self._plans[node], Layout.of(self.model), self.held
            )
            if fitted is None:
                continue
            self._plans[node] = fitted.plan
            asked[node] = packed(
                plain,
                RECORD,
                fitted.device,
                fitted.plan,
                self.method,
                is_train=train,
                max_residual_age=max_residual_age,
                whole=fitted.whole,
            )
        return asked

    def hear(self, node: int, content: RecordDict) -> Verdict:
        """Judge a reply; decode its upload if it counts."""
        report, header = DeviceReport.read(content)
        records = without_note(content).array_records
        frame = record_to_frame(records[RECORD]) if RECORD in records else None
        info = inspect_frame(frame) if frame is not None else None
        verdict = self.session.accept(node, header, info, can=report.can_bytes)
        if verdict.counts and header.status == UPDATE:
            assert frame is not None
            self._replies[node] = self._decoded(self._plans[node], frame)
        return verdict

    def close(self) -> None:
        """Average what counts, publish it, and commit."""
        accepted = [self._replies[n] for n in sorted(self.session.accepted)]
        if not accepted:
            self.session.close_phase()
            return
        mean = {
            name: np.asarray(
                np.mean([each[name] for each in accepted], axis=0)
                if array.dtype.kind == "f"
                else array
            ).astype(array.dtype)
            for name, array in accepted[0].items()
        }
        is_model = self.method.payload == MODEL_PAYLOAD
        made = mean if is_model else apply(self.held, mean)
        self.model = dict(self.method.finish(made))
        number = self.session.head.version[0] + 1
        self._version = self.method.downlink.publish(self.model, number)
        self.session.close_phase(self._version)

    def _decoded(self, plan: DevicePlan, frame: bytes) -> Arrays:
        layout = Layout.of(self.held)
        is_model = self.method.payload == MODEL_PAYLOAD
        if is_model and "TABL" in inspect_frame(frame).sections:
            part, _ = plan.upload.decode(frame)
            return completed(part, self.held)
        expected = layout if is_model else update_layout(layout)
        state = CodecState(expected)
        return dict(plan.upload.decode(frame, state, base=self.held)[0])


def dense() -> ServerMethod:
    return ServerMethod(upload=get_codec("dense"))
