"""The devices of the sessions: memory or disk, what they are asked, and the law."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.sync import device as device_side
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.wire import opened, sealed

from .chance import Chance
from .disks import same_state
from .law import Holder, Law
from .machines import Machines
from .met import Met
from .odds import DEVICE_FAULTS, READ_ERROR
from .wire import SentMessage, Wire

HEADER = "header"
SHAPES = {"weight": 16, "bias": 4}
# What the other devices have cannot fail.
_ONE_DISK_IN = 20
_DEVICE_FAULTS = {k: v for k, v in DEVICE_FAULTS.items() if k != READ_ERROR}
_MOST_FRAMES = 200


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


class SessionDevices(Machines):
    """Devices that train on whole numbers, and what befalls them.

    Parameters
    ----------
    count, chance, law, folder
        See `Machines`.
    wire : Wire
        Takes their replies.
    met : Met
        Learns which guard met which fault.

    Attributes
    ----------
    codec : Codec
        Of their uploads.
    frames : deque of bytes
        Their last uploads, for whoever replays them.
    """

    def __init__(
        self,
        count: int,
        chance: Chance,
        law: Law,
        wire: Wire,
        met: Met,
        folder: Path,
    ) -> None:
        super().__init__(count, chance, law, folder, one_disk_in=_ONE_DISK_IN)
        self.codec = get_codec({"id": "topk", "density": 0.25, "exact_below": 8})
        self.frames: deque[bytes] = deque(maxlen=_MOST_FRAMES)
        self._random = chance.random
        self._wire = wire
        self._met = met

    def ask(self, holder: Holder, message: SentMessage) -> None:
        """Let a device answer a request, if it gets so far."""
        try:
            header = DownloadHeader.from_bytes(opened(message.fields[HEADER]))
        except CodecError:
            self._met.add("header's checksum", message.fault)
            return
        fault = self._chance.pick(_DEVICE_FAULTS)
        disk = self._disks.get(holder.number)
        if disk is None:
            self._work(holder, message, header, fault)
            return
        disk.put(holder.state)
        kind = "" if fault else disk.draw()
        try:
            with disk.struck(kind), FolderStore(disk.root, lock_seconds=0) as store:
                found = store.load(header.lineage)
                if not same_state(found, holder.state):
                    self._law.report(
                        f"a disk gives another state after {kind or fault}"
                    )
                if found is not None:
                    holder.state = found
                self._work(holder, message, header, fault, store)
        except StateError as err:
            self._met.refused_by_store(kind, str(err))
            if kind not in ("disk-read-error", "disk-write-error"):
                self._law.report(f"a disk refuses after {kind or 'nothing'}: {err}")
        else:
            self._met.held(kind)
            disk.saved(holder.state)

    def _work(
        self,
        holder: Holder,
        message: SentMessage,
        header: DownloadHeader,
        fault: str,
        store: FolderStore | None = None,
    ) -> None:
        """Let a device do what it is asked, and judge it."""
        received = device_side.receive(
            holder.state,
            header,
            message.frame,
            train=message.train,
            new_token=lambda: self._random.randbytes(16),
            decode_model=_decode_model,
        )
        before = holder.state or replace(received.state, pending=(), settled=())
        stale = message.epoch != self.operator.epoch
        if fault in ("device-crash-before-write", "device-disk-full"):
            return
        state, reply, frame = received.state, received.reply, received.frame
        update = None
        if reply is None and message.train:
            update = {n: self._whole_numbers(size) for n, size in SHAPES.items()}
            done = device_side.commit_update(
                state, header, update, codec=self.codec, new_id=self._chance.new_id
            )
            state, reply, frame = done.state, done.reply, done.frame
        elif reply is None:
            reply = device_side.evaluated(state, header)
        if store is not None:
            try:
                store.save(state)
            except StateError:
                # What failed after the commit is a crash: the state is the new one.
                if not same_state(store.load(header.lineage), state):
                    raise
                fault = "device-crash-after-write"
        if stale:
            holder.excused_at = max(holder.excused_at, self.operator.phase)
        ghost = self._law.settled(holder, before, received, stale=stale)
        self._met.settled(before.token, received)
        if update is not None:
            ghost = replace(ghost, computed=ghost.computed + self._law.vector(update))
            values = self._law.vector(received.state.residual)
            values = (
                values + self._law.vector(update) - self._law.vector(state.residual)
            )
            self._law.made(state, ghost, reply.upload_id, values)
        self.events += 1
        self.operator.saved(holder, state, ghost)
        self.operator.calm(holder, header, epoch=message.epoch, phase=message.phase)
        self._law.check(holder)
        befell = fault
        if fault != "device-crash-after-write":
            if frame is not None:
                self.frames.append(frame)
            fields = {HEADER: sealed(reply.to_bytes())}
            answer = replace(
                message, fields=fields, frame=frame, is_reply=True, fault=""
            )
            befell = self._wire.send(answer)
        self._met.befell(state.token, reply.upload_id, befell)

    def _whole_numbers(self, count: int) -> np.ndarray[Any, Any]:
        drawn = np.frombuffer(self._random.randbytes(2 * count), "<u2")
        return (1 + drawn % 999).astype(np.float64)
