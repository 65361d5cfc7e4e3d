"""The device's half of FedComLoc: control variates that sum to zero over devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.frozen import frozen
from flwr_caesar.methods.control import ControlReport, ControlSettings
from flwr_caesar.methods.settings import Settings
from flwr_caesar.sync.device import Received
from flwr_caesar.sync.mapped import ReadInTurn
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import (
    CONTROL_KEY,
    EVALUATE,
    MEAN_KEY,
    MOVE_CONTROL,
    TRAIN,
    arrays_to_record,
    record_to_arrays,
)

from .control import next_control
from .method import DeviceMethod, extras

_CONTROL = "control/"
_SENT = "sent/"
_COUNTS = "control-counts"


@frozen
class _Memory:
    """What a device keeps.

    Parameters
    ----------
    control : mapping of str to ndarray
        ``h``.
    sent : mapping of str to ndarray
        What the server decodes of the last upload, until its fate is known.
    epoch : int
        Name of the time since all devices had ``h = 0``.
    moves : int
        How often `control` was moved in this epoch.
    upload_id : int
        Of `sent`.
    """

    control: Mapping[str, Array] = field(default_factory=dict)
    sent: Mapping[str, Array] = field(default_factory=dict)
    epoch: int = 0
    moves: int = 0
    upload_id: int = 0

    @classmethod
    def of(cls, state: DeviceState) -> _Memory:
        counts = state.extras.get(_COUNTS)
        if counts is None or counts.shape != (3,):
            return cls()
        epoch, moves, upload_id = (int(count) for count in counts)
        return cls(
            extras(state, _CONTROL), extras(state, _SENT), epoch, moves, upload_id
        )

    def into(self, state: DeviceState) -> DeviceState:
        kept = {_CONTROL + name: array for name, array in self.control.items()}
        kept |= {_SENT + name: array for name, array in self.sent.items()}
        counts = [self.epoch, self.moves, self.upload_id]
        kept[_COUNTS] = np.array(counts, np.uint64)
        return replace(state, extras=kept)


@frozen
class ControlVariates(DeviceMethod):
    """Keep ``h``, hand it to the app, and move it once a round's mean is known.

    A training message adds the record ``"control"`` to what the app sees. What the
    server decodes of the upload is kept as the sent model. The control phase after the
    aggregation then moves ``h`` by ``(p / lr) (mean - sent)``, if the upload was
    applied; whatever else comes first lets the sent model be forgotten. A message of
    another epoch sets ``h`` to 0 before anything else.

    Parameters
    ----------
    settings : ControlSettings
        From the server's plan.

    References
    ----------
    Yi et al. (2024), arXiv:2403.09904; see docs/fedcomloc.md.
    """

    settings: ControlSettings

    settings_type: ClassVar[type[Settings]] = ControlSettings

    def before(
        self, received: Received, content: RecordDict
    ) -> tuple[DeviceState, RecordDict]:
        """Move or reset ``h``; hand it to the app that is to train."""
        memory = _Memory.of(received.state)
        if memory.epoch != self.settings.epoch:
            memory = replace(memory, control={}, epoch=self.settings.epoch, moves=0)
        phase = self.settings.phase
        if (
            phase == MOVE_CONTROL
            and memory.sent
            and memory.upload_id in received.applied
        ):
            memory = replace(
                memory,
                control=self._moved(memory, received, content),
                moves=memory.moves + 1,
            )
        memory = replace(memory, sent={}, upload_id=0)
        if phase == TRAIN:
            content = content.copy()
            content[CONTROL_KEY] = arrays_to_record(ReadInTurn(memory.control))
        return memory.into(received.state), content

    def after(self, state: DeviceState, trained: Arrays, sent: Arrays) -> DeviceState:
        """Keep what the server decodes."""
        upload_id = state.pending[-1].upload_id
        return replace(_Memory.of(state), sent=sent, upload_id=upload_id).into(state)

    def report(self, state: DeviceState) -> Mapping[str, Any]:
        """Return the epoch, and how often ``h`` was moved in it; nothing of a test."""
        if self.settings.phase == EVALUATE:
            return {}
        memory = _Memory.of(state)
        return ControlReport(epoch=memory.epoch, settled=memory.moves).to_dict()

    def _moved(
        self, memory: _Memory, received: Received, content: RecordDict
    ) -> Mapping[str, Array]:
        assert received.model is not None
        mean: Arrays = received.model
        sent: Arrays = ReadInTurn(memory.sent)
        record = content.get(MEAN_KEY)
        if isinstance(record, ArrayRecord):
            mean = record_to_arrays(record)
        if mean.keys() != sent.keys() or received.model.keys() != sent.keys():
            raise CodecError("the mean has other tensors than the model that was sent")
        lr, p = self.settings.lr, self.settings.p
        if not lr > 0:
            raise CodecError(
                f"the server's plan has lr {lr} to move control variates with"
            )
        try:
            if self.settings.support:
                sent = {
                    name: np.where(received.model[name] != 0, own, mean[name])
                    for name, own in sent.items()
                }
            control = ReadInTurn(memory.control)
            return next_control(control, mean, sent, lr=lr, p=p)
        except ValueError as err:
            raise CodecError(f"the control variates cannot be moved: {err}") from err
