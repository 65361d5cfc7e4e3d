"""Thousands of rounds of everything that can go wrong, against the law.

Real sessions, headers and frames of a tiny model whose updates are whole numbers, so
that the law holds to the last bit. One seed decides everything that happens.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.protocol import (
    STALE,
    UPDATE,
    DownloadHeader,
    UploadHeader,
    device_id,
    model_digest,
)
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.wire import opened, sealed

from .chance import Chance
from .disks import quick_folder
from .forgery import forge
from .law import Law
from .met import Met
from .odds import DEVICE_EVENTS, MOST_LIVES_BACK, SERVER_FAULTS
from .report import FaultReport
from .session_devices import HEADER, SHAPES, SessionDevices
from .wire import SentMessage, Wire

QUIET_ROUNDS = 3
_HOSTILE_NODES = range(1, 4)
# A server that can send changes of the last versions, but not of every one.
_MOST_BASES = 6
_CHANCE_KEPT = 0.8


@dataclass(frozen=True)
class _Published:
    model: dict[str, np.ndarray[Any, Any]]
    frame: bytes = field(repr=False)
    changes: dict[Version, bytes] = field(default_factory=dict, repr=False)


class FaultRun:
    """One simulated training, see `run_faults`."""

    def __init__(
        self, seed: int, devices: int, participation: float, folder: Path
    ) -> None:
        self._chance = Chance(seed)
        self._random = self._chance.random
        self._participation = participation
        self._dense = get_codec("dense")
        self.law = Law(SHAPES)
        self.met = Met()
        self._wire = Wire(self._chance)
        self._devices = SessionDevices(
            devices, self._chance, self.law, self._wire, self.met, folder
        )
        self.holders = self._devices.holders
        self._operator = self._devices.operator
        self._seen: deque[UploadHeader] = deque(maxlen=200)
        self.faults = self._chance.faults
        self.refusals: Counter[str] = Counter()
        self.applied = self.resyncs = self.changes = self._events = 0
        self._clock = 1_000_000
        self._lives_back = 0
        self._sums: dict[int, tuple[str, int, dict[str, Any]]] = {}
        self._last_applied = 0
        self._bases: dict[Version, _Published] = {}
        self._ledger = MemoryLedger(
            self._publish({n: np.zeros(s) for n, s in SHAPES.items()})
        )
        self._start_server()
        self._backups = [(self._ledger.copy(), self.law.snapshot())]

    @property
    def events(self) -> int:
        """Messages delivered, durable writes, commits, and acts of the operator."""
        return self._events + self._devices.events

    def round(self, number: int) -> None:
        """Run one round with its faults, and check every device after it."""
        self.law.where = f"round {number}"
        self._tamper_with_machines()
        self._run_phase(train=True)
        if number % 5 == 4:
            self._run_phase(train=False)
        for holder in self.holders:
            self.law.check(holder)
        self.law.check_model(self.law.vector(self._ledger.checkpoint.model))

    def quiet_rounds(self) -> None:
        """End with rounds without faults, after which all is well again."""
        self._chance.quiet = True
        self._lives_back = 0
        self._wire.clear()
        self._start_server()
        for number in range(QUIET_ROUNDS):
            self.round(-1 - number)
        last = self._server.head.version[0] - 1
        for holder in self.holders:
            state = holder.state
            if state is None or state.version != last:
                self.law.violations.append(f"device {holder.number} is left behind")
        if self._last_applied != len(self.holders):
            self.law.violations.append("not every device is heard again")

    # the server

    def _publish(self, model: dict[str, Any]) -> _Published:
        return _Published(model, self._dense.encode(model)[0])

    def _start_server(self, now: int | None = None) -> None:
        self._clock += 1_000
        self._lives_back = max(self._lives_back - 1, 0)
        if self._lives_back:
            now = 0
        if self._random.random() < 0.5:  # what it could send changes of may be lost
            self._bases.clear()
        model = self._ledger.checkpoint.model
        initial: Version = (0, model_digest(model))
        self._server = ServerSession(
            self._ledger,
            now=self._clock if now is None else now,
            new_id=self._chance.new_id,
            initial=initial,
        )
        self._server.refusals = self.refusals
        self._sums = {}

    def _run_phase(self, *, train: bool) -> None:
        self._operator.phase += 1
        count = len(self.holders)
        asked = self.holders
        if not self._chance.quiet:
            count = max(1, round(self._participation * count))
            asked = self._random.sample(self.holders, count)
        node_ids = [h.node_id for h in asked]
        if not self._chance.quiet:
            node_ids += _HOSTILE_NODES
        headers = self._server.open_phase(
            node_ids, train=train, changes_from=self._bases
        )
        for node_id, header in headers.items():
            sent = self._frame_for(header)
            self._wire.send(
                SentMessage(
                    node_id,
                    {HEADER: sealed(header.to_bytes())},
                    sent,
                    self._operator.epoch,
                    self._operator.phase,
                    train,
                )
            )
        self._wire.let_late_ones_arrive()
        self._deliver_all()
        if self._chance.strikes("server-crash-before-commit", SERVER_FAULTS):
            self._start_server()
            return
        if self._chance.strikes("server-crash-open", SERVER_FAULTS):
            self._start_server()
        self._close(train=train)
        if self._chance.strikes("server-crash-after-commit", SERVER_FAULTS):
            self._start_server()
        if self._chance.strikes("server-clock-back", SERVER_FAULTS):
            self._operator.epoch += 1
            self._operator.excuse_all()
            self._start_server(now=0)
        if self._chance.strikes("server-clock-stays-back", SERVER_FAULTS):
            # Nothing is excused: the ledger goes on, and orders grow all the same.
            self._lives_back = self._random.randrange(2, MOST_LIVES_BACK)
            self._start_server()
            self.met.add("order grows past the ledger's", "server-clock-stays-back")

    def _frame_for(self, header: DownloadHeader) -> bytes | None:
        """Return the whole model, a change of the base, or nothing."""
        current: _Published = self._ledger.checkpoint
        if header.base == header.target:
            return None
        if header.base is None:
            return current.frame
        self.changes += 1
        base = self._bases[header.base]
        if header.base not in current.changes:
            change = {n: a - base.model[n] for n, a in current.model.items()}
            current.changes[header.base] = self._dense.encode(change)[0]
        return current.changes[header.base]

    def _remember(self, version: Version, published: _Published) -> None:
        """Keep most of the last versions, to send changes of them."""
        if self._random.random() < _CHANCE_KEPT:
            self._bases[version] = published
        while len(self._bases) > _MOST_BASES:
            del self._bases[next(iter(self._bases))]

    def _close(self, *, train: bool) -> None:
        self._events += 1
        uploads = [
            (device, upload_id, self.law.vector(values))
            for node, (device, upload_id, values) in self._sums.items()
            if node in self._server.accepted
        ]
        self._sums = {}
        if not train or not uploads:
            self._server.close_phase()
            return
        total = sum((values for _, _, values in uploads), self.law.zeros())
        model = {
            name: self._ledger.checkpoint.model[name] + change
            for name, change in self.law.arrays(total).items()
        }
        number = self._server.head.version[0] + 1
        self._remember(self._server.head.version, self._ledger.checkpoint)
        published = self._publish(model)
        self._server.close_phase((number, model_digest(model)), published)
        self.law.committed(uploads)
        self.applied += len(uploads)
        self._last_applied = len(uploads)
        if self._random.random() < 0.1:
            self._backups.append((self._ledger.copy(), self.law.snapshot()))
            self._backups = self._backups[-6:]

    def _take(self, message: SentMessage) -> None:
        try:
            reply = UploadHeader.from_bytes(opened(message.fields[HEADER]))
            info = None if message.frame is None else inspect_frame(message.frame)
        except CodecError:
            self.refusals["damaged"] += 1
            self.met.by_reply(message, "damaged")
            return
        self._seen.append(reply)
        verdict = self._server.accept(message.node_id, reply, info)
        self.met.by_reply(message, verdict.reason)
        if verdict.reason == "the device needs a whole model":
            self.resyncs += 1
        if reply.status == STALE:
            self._check_stale(message, reply)
        if not verdict.counts or reply.status != UPDATE or message.frame is None:
            return
        layout = Layout.of(self._ledger.checkpoint.model)
        try:
            values, _ = self._devices.codec.decode(message.frame, CodecState(layout))
        except CodecError as err:
            self._server.withdraw(message.node_id, f"malformed: {err!s:.40}")
            self.met.by_reply(message, "malformed")
            return
        device = device_id(reply.token)
        if message.node_id in _HOSTILE_NODES:
            self.law.claimed(device, reply.upload_id, self.law.vector(values))
        self._sums[message.node_id] = device, reply.upload_id, values

    def _check_stale(self, message: SentMessage, reply: UploadHeader) -> None:
        """Check that a device which has seen newer requests is one that may have."""
        operator = self._operator
        is_now = (message.epoch, message.phase) == (operator.epoch, operator.phase)
        holder = next((h for h in self.holders if h.node_id == message.node_id), None)
        if message.fault or not is_now or holder is None or holder.excused_at >= 0:
            return
        if holder.state is not None and holder.state.token == reply.token:
            self.law.report(
                f"device {holder.number} takes a new request for an old one"
            )

    def _deliver_all(self) -> None:
        at_node = {holder.node_id: holder for holder in self.holders}
        for message in self._wire.deliveries():
            self._events += 1
            if message.is_reply:
                self._take(message)
            elif message.node_id in _HOSTILE_NODES:
                self._hostile(message)
            else:
                holder = at_node.get(message.node_id)
                if holder is not None:
                    self._devices.ask(holder, message)

    def _hostile(self, message: SentMessage) -> None:
        try:
            header = DownloadHeader.from_bytes(opened(message.fields[HEADER]))
        except CodecError:
            return
        self.faults["hostile-reply"] += 1
        kind = "hostile-reply"
        forged, seen = forge(self._chance, header, self._seen)
        frames = self._devices.frames
        frame = self._random.choice(frames) if frames else b""
        node_id = message.node_id
        if self._random.random() < 0.3:
            node_id = self._random.choice(self.holders).node_id
            forged, kind = seen, "hostile-replay"
        self._wire.put(
            replace(
                message,
                node_id=node_id,
                fields={HEADER: sealed(forged.to_bytes())},
                frame=frame,
                is_reply=True,
                fault=kind,
            )
        )

    # whoever has the keys to the machines

    def _tamper_with_machines(self) -> None:
        if self._chance.quiet:
            return
        for holder in self.holders:
            kind = self._chance.pick(DEVICE_EVENTS, count=False)
            if kind and self._operator.act(kind, holder):
                self.faults[kind] += 1
                self._events += 1
        if self._chance.strikes("server-restored", SERVER_FAULTS):
            ledger, truth = self._random.choice(self._backups)
            self._ledger = ledger.copy()
            self._lives_back = 0  # with an old ledger, it would not be known as wrong
            self._operator.epoch += 1
            self.law.restored(truth, self.holders, self._operator.phase)
            self._start_server()
            self._events += 1


def run_faults(
    *,
    seed: int,
    devices: int,
    rounds: int,
    participation: float = 0.5,
    on_round: Callable[[int, FaultRun], None] | None = None,
) -> FaultReport:
    """Simulate a training with faults, and check the law after every event.

    Parameters
    ----------
    seed : int
        Decides everything: the same arguments give the same report.
    devices, rounds : int
        Size of the run; a few rounds without faults follow.
    participation : float
        Fraction of the devices asked in a round.
    on_round : callable, optional
        Called with the number of each round and the run, after it.
    """
    with quick_folder() as folder:
        run = FaultRun(seed, devices, participation, folder)
        for number in range(rounds):
            run.round(number)
            if on_round:
                on_round(number, run)
            if run.law.violations:
                break
        else:
            run.quiet_rounds()
    return FaultReport(
        seed=seed,
        devices=devices,
        rounds=rounds,
        participation=participation,
        events=run.events,
        faults=dict(sorted(run.faults.items())),
        applied=run.applied,
        changes=run.changes,
        resyncs=run.resyncs,
        forfeited=run.law.forfeited,
        refusals=dict(run.refusals.most_common()),
        violations=tuple(run.law.violations),
        met=run.met.report(),
    )
