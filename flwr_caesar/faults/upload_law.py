"""The law of uploads, seen from outside the mod and the strategy.

`flwr_caesar.faults.law.Law` knows what every device's history computed and what the
server applied. Here it is told both by looking at what passes: the device's state
before and after a message, what its app received and returned, and what the inner
strategy was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import RecordDict

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.sync.device import Received
from flwr_caesar.sync.protocol import DownloadHeader, UploadHeader, device_id
from flwr_caesar.sync.short import LEAST_ROUNDING, ROUNDING, ShortResidual
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState, Pending
from flwr_caesar.transport import DeviceReport

from .law import Ghost, Holder, Law

Arrays = Mapping[str, np.ndarray[Any, Any]]
Vector = np.ndarray[Any, np.dtype[np.float64]]

# What a codec may change of an element that it sends, as a fraction of the largest.
_LOSS = 0.02


@dataclass(frozen=True)
class Given:
    """An upload that the server used, and what became of it.

    Parameters
    ----------
    node_id : int
        Where it came from.
    header : UploadHeader
        That came with it.
    frame : bytes
        The upload.
    weight : float
        Of it, as the device said.
    """

    node_id: int
    header: UploadHeader
    frame: bytes
    weight: float

    @property
    def key(self) -> tuple[str, int]:
        """By which the law knows it."""
        return device_id(self.header.token), self.header.upload_id


class UploadLaw:
    """Tells a `Law` what devices and server do.

    Parameters
    ----------
    law : Law
        With a tolerance: these are real updates in float32.
    layout : Layout
        Of the model.
    error_feedback : bool
        Whether devices keep what their codec leaves out.
    payload : {"update", "model"}
        What they send.
    """

    def __init__(
        self, law: Law, layout: Layout, *, error_feedback: bool, payload: str
    ) -> None:
        self._law = law
        self._is_model = payload == MODEL_PAYLOAD
        self._layout = layout if self._is_model else update_layout(layout)
        self._error_feedback = error_feedback

    def answered(
        self,
        holder: Holder,
        after: DeviceState,
        header: DownloadHeader,
        worked: tuple[Arrays, Arrays] | None,
        *,
        stale: bool,
    ) -> Ghost:
        """Learn what a message made of a device's state; return its ghost.

        Parameters
        ----------
        holder : Holder
            The device, with its state before.
        after : DeviceState
            Its state after.
        header : DownloadHeader
            The message's.
        worked : tuple of two mappings of str to ndarray, optional
            What the app received and returned, if it trained.
        stale : bool
            Whether the message is from before the server went back.
        """
        law = self._law
        before = holder.state or replace(after, pending=(), settled=(), residual={})
        ghost = law.settled(
            holder, before, self._received(before, after, header), stale=stale
        )
        waited = {pending.upload_id for pending in before.pending}
        new = [p for p in after.pending if p.upload_id not in waited]
        if new and worked is not None:
            (pending,) = new
            sent = self.decoded(pending.frame, after)
            received, trained = (law.vector(arrays) for arrays in worked)
            if self._is_model:
                self._check_loss(after, trained, sent, pending.frame)
            else:
                computed = ghost.computed + trained - received
                if not self._error_feedback:
                    # What the law says was not sent yet, whatever the device thinks.
                    owed = (
                        computed - ghost.spent_sum - self._waiting(after, but=pending)
                    )
                    self._check_loss(after, owed, sent, pending.frame)
                    computed = computed - owed + sent
                ghost = replace(ghost, computed=computed)
            law.made(after, ghost, pending.upload_id, sent)
            if self._error_feedback and not self._is_model:
                ghost = self._without_dropped(after, ghost)
        elif new:
            law.report(f"{device_id(after.token)} sends what it did not compute")
        if self._is_model:
            ghost = replace(ghost, computed=ghost.spent_sum + self._waiting(after))
        return ghost

    def should_count(self, answer: RecordDict | None) -> bool:
        """Whether the server can tell who gave an honest answer.

        One that went back further than a device remembers its uploads cannot
        (docs/sync.md, Limits).
        """
        if answer is None:
            return False
        header = DeviceReport.read(answer)[1]
        applied = self._law.truth.get(device_id(header.token), set())
        # Who does not list what it knows says that it made what the request names.
        known = header.known is None or not applied.isdisjoint(header.known)
        return not applied or known

    def applied(
        self,
        uploads: list[Given],
        given: dict[int, Vector] | Vector,
        *,
        uniform: bool,
    ) -> None:
        """Check what the inner strategy was given in a round that is committed.

        Parameters
        ----------
        uploads : list of Given
            Whose replies were used.
        given : mapping of int to ndarray, or ndarray
            Each node's update or model, or their mean.
        uniform : bool
            Whether all have the same weight.
        """
        law = self._law
        for upload in uploads:
            if upload.key not in law.mass:
                law.claimed(*upload.key, self.decoded(upload.frame, None))
        masses = [law.mass[upload.key] for upload in uploads]
        if isinstance(given, dict):
            if given.keys() != {upload.node_id for upload in uploads}:
                law.report("the inner strategy was given other replies than were used")
                return
            values = [given[upload.node_id] for upload in uploads]
        else:
            weights = [1.0 if uniform else upload.weight for upload in uploads]
            if not law.same(np.average(masses, axis=0, weights=weights), given):
                law.report("the mean applied is not of what the devices sent")
            values = masses
        law.committed(
            (*upload.key, value) for upload, value in zip(uploads, values, strict=True)
        )

    def decoded(self, frame: bytes, state: DeviceState | None) -> Vector:
        """Decode an upload as whoever sent it believes that the server does."""
        memory = CodecState(self._layout)
        if state is not None and state.codec_arrays:
            memory = CodecState(self._layout, state.codec_version, state.codec_arrays)
        codec = get_codec(inspect_frame(frame).config)
        return self._law.vector(codec.decode(frame, memory)[0])

    def _received(
        self, before: DeviceState, after: DeviceState, header: DownloadHeader
    ) -> Received:
        """Return how the device judged its uploads, told by its states."""
        old = [pending.upload_id for pending in before.pending]
        if before.token != after.token:
            applied = tuple(i for i in old if i in header.applied)
            device = device_id(before.token)
            left = self._law.vector(before.residual)
            for upload_id in old:
                if upload_id not in applied:
                    left = left + self._law.mass[device, upload_id]
            return Received(after, applied=applied, forfeited=self._law.arrays(left))
        applied = tuple(i for i in old if i in after.settled)
        waiting = {pending.upload_id for pending in after.pending}
        returned = tuple(i for i in old if i not in waiting and i not in applied)
        return Received(after, applied=applied, returned=returned)

    def _without_dropped(self, state: DeviceState, ghost: Ghost) -> Ghost:
        """Return a ghost without what keeping the residual in 16 bits may drop.

        What is dropped beyond that stays in it, and breaks the law.
        """
        if not isinstance(state.residual, ShortResidual):
            return ghost
        residual = self._law.vector(state.residual)
        dropped = ghost.computed - ghost.spent_sum - self._waiting(state) - residual
        most = ROUNDING * np.abs(residual) + LEAST_ROUNDING * np.abs(residual).max()
        return replace(ghost, computed=ghost.computed - np.clip(dropped, -most, most))

    def _waiting(self, state: DeviceState, but: Pending | None = None) -> Vector:
        device = device_id(state.token)
        masses = (
            self._law.mass[device, pending.upload_id]
            for pending in state.pending
            if pending is not but
        )
        return sum(masses, self._law.zeros())

    def _check_loss(
        self, state: DeviceState, meant: Vector, sent: Vector, frame: bytes
    ) -> None:
        """Check that each element is what was meant, about, or left out."""
        off = np.abs(meant - sent) > _LOSS * np.abs(meant).max()
        if np.any(off & (sent != self._left_out(state, frame))):
            self._law.report(f"{device_id(state.token)} sends what it did not compute")

    def _left_out(self, state: DeviceState, frame: bytes) -> Vector:
        """Return what stands for elements that an upload leaves out."""
        info = inspect_frame(frame)
        held = state.codec_arrays if info.state_version else {}
        if info.config["id"] != "predicted" or not held:
            return self._law.zeros()
        return self._law.vector(
            {
                spec.name: np.reshape(held[spec.name], spec.shape)
                if spec.name in held
                else np.zeros(spec.shape)
                for spec in self._layout.tensors
            }
        )


def parsed(content: RecordDict) -> UploadHeader | None:
    """Return the header of a reply; `None` if it is damaged."""
    try:
        return DeviceReport.read(content)[1]
    except CodecError:
        return None
