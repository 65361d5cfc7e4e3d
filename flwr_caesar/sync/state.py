"""What a device remembers of one training history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.frozen import frozen

UPDATE_PAYLOAD = "update"
MODEL_PAYLOAD = "model"

MAX_TOLD_BYTES = 16 << 20
"""Most bytes of text that a reply may say beside its update: metrics, labels."""

Order = tuple[int, int]
"""When the server made a request: its incarnation, and a count of its phases.

An incarnation is larger than that of any server process before it, so orders compare
across restarts and restored backups.
"""

Version = tuple[int, bytes]
"""Number of a published model, and the eight bytes that name its content."""

MAX_APPLIED = 16
"""Uploads of a device of which the server still says that they were applied."""


@frozen
class Pending:
    """An upload of which the device does not yet know whether it was applied.

    Parameters
    ----------
    upload_id : int
        Random, 64 bits, not zero.
    order : tuple of int
        Of the request it answers.
    frame : bytes
        What was sent; decoding it gives what the residual gets back.
    payload : str
        `UPDATE_PAYLOAD`, or `MODEL_PAYLOAD` for a whole model, which is superseded by
        the next one and never goes back into a residual.
    told : str
        JSON of what the reply said beside it, to answer the same request again.
    share : float
        Length of the training's own update, in that of what was encoded, which has the
        residual too; 1 at the most. 0 if it is not known.
    """

    upload_id: int
    order: Order
    frame: bytes
    payload: str = UPDATE_PAYLOAD
    told: str = ""
    share: float = 0.0


@frozen
class DeviceState:
    """State of one device in one lineage; a store keeps it whole or not at all.

    Parameters
    ----------
    token : bytes
        16 random bytes known to this device and the server only; their SHA-256 is the
        device's id in the server's ledger.
    lineage : int
        The training history.
    order : tuple of int
        Of the newest request that was answered.
    version : int
        Number of the model held; -1 if none.
    digest : bytes
        Eight bytes that name the content of that model; empty if none.
    model : mapping of str to ndarray
        That model.
    residual : mapping of str to ndarray
        What was computed and not sent, float32 (float64 for float64 tensors); see
        `flwr_caesar.sync.short` for how large tensors are kept.
    pending : tuple of Pending
        Uploads that are not settled, oldest first.
    settled : tuple of int
        Ids of the newest uploads known to be applied, newest last.
    codec_version, codec_arrays : int, mapping of str to ndarray
        Memory of the upload codec after the last settled upload.
    extras : mapping of str to ndarray
        What a method keeps on the device beside these, such as control variates.
    reported : str
        What the device said it can (`flwr_caesar.transport.Abilities`); empty if it
        said nothing.
    reported_by : int
        The newest upload whose reply said so; 0 once one was applied.
    longest : float
        Length of the longest single training in the residual, as it would have been
        sent; 0 if none is known.
    """

    token: bytes
    lineage: int
    order: Order = (0, 0)
    version: int = -1
    digest: bytes = b""
    model: Mapping[str, Array] = field(default_factory=dict)
    residual: Mapping[str, Array] = field(default_factory=dict)
    pending: tuple[Pending, ...] = ()
    settled: tuple[int, ...] = ()
    codec_version: int = 0
    codec_arrays: Mapping[str, Array] = field(default_factory=dict)
    extras: Mapping[str, Array] = field(default_factory=dict)
    reported: str = ""
    reported_by: int = 0
    longest: float = 0.0


class DeviceStore(Protocol):
    """Where a device's states are kept between messages, one for each lineage."""

    def load(self, lineage: int) -> DeviceState | None:
        """Return the state of a lineage; `None` if there is none.

        State that is damaged is put aside and said so in the log, and is none.

        Raises
        ------
        StateError
            If it cannot be read now; it is as it was, and the next call may succeed.
        """

    def prepare(self, state: DeviceState) -> DeviceState:
        """Find out before the work whether its outcome could be kept.

        Parameters
        ----------
        state : DeviceState
            To work on, with the model in it.

        Returns
        -------
        DeviceState
            The same, its model perhaps in memory that the system can take back. The
            caller should let go of the other one.

        Raises
        ------
        StateError
            If not.
        """

    def save(self, state: DeviceState) -> None:
        """Keep a state durably: after a crash, either it or the one before loads.

        Raises
        ------
        StateError
            If it cannot be kept.
        """
