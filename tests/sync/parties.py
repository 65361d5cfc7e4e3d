"""A server and devices that talk without a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np

from flwr_caesar.codec import CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.sync.device import Received, commit_update, evaluated, receive
from flwr_caesar.sync.memory import MemoryLedger
from flwr_caesar.sync.protocol import (
    DownloadHeader,
    UploadHeader,
    model_digest,
)
from flwr_caesar.sync.server import ServerSession, Verdict
from flwr_caesar.sync.state import DeviceState

CODEC = get_codec({"id": "topk", "density": 0.25, "exact_below": 1})
_ids = count(1)


def new_id() -> int:
    return next(_ids)


def new_token() -> bytes:
    return new_id().to_bytes(16, "big")


@dataclass
class Device:
    node_id: int
    state: DeviceState | None = None
    computed: np.ndarray = field(default_factory=lambda: np.zeros(8))
    last: Received | None = None

    def take(self, header, frame, *, train=True):
        """Answer a request; returns the reply's header and frame."""
        header = DownloadHeader.from_bytes(header.to_bytes())
        got = receive(self.state, header, frame, train=train, new_token=new_token)
        self.last = got
        self.state = got.state
        if got.reply is not None:
            return got.reply, got.frame
        if not train:
            return evaluated(got.state, header), None
        delta = np.arange(1.0, 9.0) * new_id()
        done = commit_update(
            got.state, header, {"w": delta}, codec=CODEC, new_id=new_id
        )
        self.state = done.state
        self.computed = self.computed + delta
        return done.reply, done.frame

    @property
    def residual(self):
        return self.state.residual.get("w", np.zeros(8))

    def waiting(self):
        layout = CodecState(Layout.of({"w": np.zeros(8)}))
        frames = [p.frame for p in self.state.pending]
        return sum((CODEC.decode(f, layout)[0]["w"] for f in frames), np.zeros(8))


class Server:
    def __init__(self):
        self.now = 0
        self.ledger = MemoryLedger({"w": np.zeros(8)})
        self.restart()

    def restart(self, ledger=None):
        self.now += 100
        self.ledger = ledger or self.ledger
        initial = 0, model_digest(self.model)
        self.session = ServerSession(
            self.ledger, now=self.now, new_id=new_id, initial=initial
        )
        self.sums = {}

    @property
    def model(self):
        return self.ledger.checkpoint

    def ask(self, devices, *, train=True):
        """Open a phase; returns header and frame by node."""
        headers = self.session.open_phase([d.node_id for d in devices], train=train)
        frame = get_codec("dense").encode(self.model)[0]
        return {
            node: (header, None if header.base == header.target else frame)
            for node, header in headers.items()
        }

    def hear(self, node_id, reply, frame) -> Verdict:
        reply = UploadHeader.from_bytes(reply.to_bytes())
        info = inspect_frame(frame) if frame else None
        verdict = self.session.accept(node_id, reply, info)
        if verdict.counts and frame:
            layout = CodecState(Layout.of(self.model))
            codec = get_codec(inspect_frame(frame).config)
            self.sums[node_id] = codec.decode(frame, layout)[0]["w"]
        return verdict

    def close(self):
        total = [self.sums[n] for n in self.session.accepted]
        self.sums = {}
        if not total:
            self.session.close_phase()
            return
        model = {"w": self.model["w"] + sum(total)}
        version = self.session.head.version[0] + 1, model_digest(model)
        self.session.close_phase(version, model)

    def round(self, *devices, train=True, lose=()):
        """Run a round; replies of the devices in `lose` do not arrive."""
        verdicts = []
        for node, (header, frame) in self.ask(devices, train=train).items():
            device = next(d for d in devices if d.node_id == node)
            reply = device.take(header, frame, train=train)
            if device not in lose:
                verdicts.append(self.hear(node, *reply))
        self.close()
        return verdicts


def law_holds(server: Server, *devices: Device) -> bool:
    """Whether all that was computed is in the model or still on a device."""
    applied = server.model["w"]
    kept = sum((d.residual for d in devices), np.zeros(8))
    computed = sum((d.computed for d in devices), np.zeros(8))
    return np.array_equal(applied + kept, computed)
