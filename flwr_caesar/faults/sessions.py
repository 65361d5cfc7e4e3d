"""Thousands of rounds of everything that can go wrong, against the law.

Real sessions, headers and frames of a tiny model whose updates are whole numbers, so
that the law holds to the last bit. One seed decides everything that happens.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.sync import device as device_side
from flwr_caesar.sync.ledger_api import Version
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.protocol import (
    UPDATE,
    DownloadHeader,
    UploadHeader,
    device_id,
    model_digest,
)
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.sync.wire import opened, sealed

from .chance import Chance
from .forgery import forge
from .law import Holder, Law
from .plan import (
    DEADLINE,
    DEVICE_EVENTS,
    DEVICE_FAULTS,
    MESSAGE_FAULTS,
    REORDER,
    SERVER_FAULTS,
    FaultReport,
)
from .tampering import Operator

SHAPES = {"weight": 16, "bias": 4}
QUIET_ROUNDS = 3
_HEADER = "header"
_HOSTILE_NODES = range(1, 4)
_MOST_LATE = 400
# A server that can send changes of the last versions, but not of every one.
_MOST_BASES = 6
_CHANCE_KEPT = 0.8


@dataclass(frozen=True)
class _Message:
    node_id: int
    fields: dict[str, Any]
    frame: bytes | None
    epoch: int
    phase: int
    train: bool = True
    is_reply: bool = False


@dataclass(frozen=True)
class _Published:
    model: dict[str, np.ndarray[Any, Any]]
    frame: bytes = field(repr=False)
    changes: dict[Version, bytes] = field(default_factory=dict, repr=False)


@lru_cache(maxsize=16)
def _decode_frame(frame: bytes) -> Mapping[str, Array]:
    """Decode what hundreds of devices are sent only once."""
    return device_side.decode_whole(frame, None)


def _decode_model(frame: bytes, base: Arrays | None) -> Mapping[str, Array]:
    """Decode a model, or what is to be added to the base to get it."""
    decoded = _decode_frame(frame)
    if base is None:
        return decoded
    if {n: a.shape for n, a in base.items()} != {
        n: a.shape for n, a in decoded.items()
    }:
        raise CodecError("the change is of other tensors than the base")
    return {name: base[name] + array for name, array in decoded.items()}


class FaultRun:
    """One simulated training, see `run_faults`."""

    def __init__(self, seed: int, devices: int, participation: float) -> None:
        self._chance = Chance(seed)
        self._random = self._chance.random
        self._participation = participation
        self._codec = get_codec({"id": "topk", "density": 0.25, "exact_below": 8})
        self._dense = get_codec("dense")
        self.law = Law(SHAPES)
        self.holders = [Holder(n, self._chance.new_id()) for n in range(devices)]
        self._operator = Operator(self._chance, self.holders, self.law)
        self._wire: deque[_Message] = deque()
        self._late: list[_Message] = []
        self._seen: deque[UploadHeader] = deque(maxlen=200)
        self._frames: deque[bytes] = deque(maxlen=200)
        self.faults = self._chance.faults
        self.refusals: Counter[str] = Counter()
        self.events = self.applied = self.resyncs = self.changes = 0
        self._clock = 1_000_000
        self._sums: dict[int, tuple[str, int, dict[str, Any]]] = {}
        self._last_applied = 0
        self._bases: dict[Version, _Published] = {}
        self._ledger = MemoryLedger(
            self._publish({n: np.zeros(s) for n, s in SHAPES.items()})
        )
        self._start_server()
        self._backups = [(self._ledger.copy(), self.law.snapshot())]

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
        self._wire.clear()
        self._late.clear()
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
            self._send(
                _Message(
                    node_id,
                    {_HEADER: sealed(header.to_bytes())},
                    sent,
                    self._operator.epoch,
                    self._operator.phase,
                    train,
                )
            )
        for _ in range(
            min(len(self._late), self._random.randrange(1 + len(self._late)))
        ):
            self._wire.append(self._late.pop(self._random.randrange(len(self._late))))
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
        self.events += 1
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

    def _take(self, message: _Message) -> None:
        try:
            reply = UploadHeader.from_bytes(opened(message.fields[_HEADER]))
            info = None if message.frame is None else inspect_frame(message.frame)
        except CodecError:
            self.refusals["damaged"] += 1
            return
        self._seen.append(reply)
        verdict = self._server.accept(message.node_id, reply, info)
        if verdict.reason == "the device needs a whole model":
            self.resyncs += 1
        if not verdict.counts or reply.status != UPDATE or message.frame is None:
            return
        layout = Layout.of(self._ledger.checkpoint.model)
        try:
            values, _ = self._codec.decode(message.frame, CodecState(layout))
        except CodecError as err:
            self._server.withdraw(message.node_id, f"malformed: {err!s:.40}")
            return
        device = device_id(reply.token)
        if message.node_id in _HOSTILE_NODES:
            self.law.claimed(device, reply.upload_id, self.law.vector(values))
        self._sums[message.node_id] = device, reply.upload_id, values

    # the network

    def _send(self, message: _Message) -> None:
        fault = self._chance.pick(MESSAGE_FAULTS)
        if fault == "drop":
            return
        if fault == "delay":
            self._late.append(message)
            del self._late[:-_MOST_LATE]
            return
        if fault == "duplicate":
            copies = self._wire if self._random.random() < 0.7 else self._late
            copies.append(message)
        if fault == "corrupt-frame":
            message = replace(message, frame=self._chance.flip(message.frame or b""))
        if fault == "corrupt-header":
            name = self._random.choice(sorted(message.fields))
            message = replace(
                message,
                fields={
                    **message.fields,
                    name: self._chance.tamper(message.fields[name]),
                },
            )
        self._wire.append(message)

    def _deliver_all(self) -> None:
        at_node = {holder.node_id: holder for holder in self.holders}
        deadline = not self._chance.quiet and self._random.random() < DEADLINE
        left = self._random.randrange(1 + 2 * len(self._wire)) if deadline else -1
        while self._wire:
            if left == 0:
                self.faults["deadline-missed"] += len(self._wire)
                self._late.extend(self._wire)
                del self._late[:-_MOST_LATE]
                self._wire.clear()
                return
            left -= 1
            if (
                not self._chance.quiet
                and len(self._wire) > 1
                and self._random.random() < REORDER
            ):
                self.faults["reorder"] += 1
                self._wire.rotate(-self._random.randrange(1, len(self._wire)))
            message = self._wire.popleft()
            self.events += 1
            if message.is_reply:
                self._take(message)
            elif message.node_id in _HOSTILE_NODES:
                self._hostile(message)
            else:
                holder = at_node.get(message.node_id)
                if holder is not None:
                    self._ask(holder, message)

    # the devices

    def _ask(self, holder: Holder, message: _Message) -> None:
        try:
            header = DownloadHeader.from_bytes(opened(message.fields[_HEADER]))
        except CodecError:
            return
        received = device_side.receive(
            holder.state,
            header,
            message.frame,
            train=message.train,
            new_token=lambda: self._random.randbytes(16),
            decode_model=_decode_model,
        )
        before = holder.state or replace(received.state, pending=(), settled=())
        stale = message.epoch != self._operator.epoch
        fault = self._chance.pick(DEVICE_FAULTS)
        if fault in ("device-crash-before-write", "device-disk-full"):
            return
        if stale:
            holder.excused_at = max(holder.excused_at, self._operator.phase)
        ghost = self.law.settled(holder, before, received, stale=stale)
        state, reply, frame = received.state, received.reply, received.frame
        if reply is None and message.train:
            update = {
                n: np.array([float(self._random.randrange(1, 1000)) for _ in range(s)])
                for n, s in SHAPES.items()
            }
            done = device_side.commit_update(
                state, header, update, codec=self._codec, new_id=self._chance.new_id
            )
            state, reply, frame = done.state, done.reply, done.frame
            ghost = replace(ghost, computed=ghost.computed + self.law.vector(update))
            before_sum = self.law.vector(received.state.residual)
            values = before_sum + self.law.vector(update)
            values -= self.law.vector(state.residual)
            self.law.made(state, ghost, reply.upload_id, values)
        elif reply is None:
            reply = device_side.evaluated(state, header)
        self.events += 1
        self._operator.saved(holder, state, ghost)
        self._operator.calm(holder, header, epoch=message.epoch, phase=message.phase)
        self.law.check(holder)
        if fault != "device-crash-after-write":
            if frame is not None:
                self._frames.append(frame)
            self._send(
                replace(
                    message,
                    fields={_HEADER: sealed(reply.to_bytes())},
                    frame=frame,
                    is_reply=True,
                )
            )

    def _hostile(self, message: _Message) -> None:
        try:
            header = DownloadHeader.from_bytes(opened(message.fields[_HEADER]))
        except CodecError:
            return
        self.faults["hostile-reply"] += 1
        forged, seen = forge(self._chance, header, self._seen)
        frame = self._random.choice(self._frames) if self._frames else b""
        node_id = message.node_id
        if self._random.random() < 0.3:
            node_id = self._random.choice(self.holders).node_id
            forged = seen
        self._wire.append(
            replace(
                message,
                node_id=node_id,
                fields={_HEADER: sealed(forged.to_bytes())},
                frame=frame,
                is_reply=True,
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
                self.events += 1
        if self._chance.strikes("server-restored", SERVER_FAULTS):
            ledger, truth = self._random.choice(self._backups)
            self._ledger = ledger.copy()
            self._operator.epoch += 1
            self.law.restored(truth, self.holders, self._operator.phase)
            self._start_server()
            self.events += 1


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
    run = FaultRun(seed, devices, participation)
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
    )
