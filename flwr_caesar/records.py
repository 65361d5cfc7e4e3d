"""What a round cost: bytes, measured seconds and virtual ones, per device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from flwr_caesar.frozen import frozen

from .telemetry import Telemetry

_REASON_CHARS = 500
# Beside a device's other columns these need more of a name.
_COLUMNS = {"seconds": "seconds_measured", "source": "sensors"}


def as_reason(text: str) -> str:
    """Return a text of unknown origin as one short line.

    What a device says of an error ends in logs, histories and CSV files: it is cut to
    500 characters, and whatever does not print is escaped, line breaks among it.
    """
    if len(text) > _REASON_CHARS:
        text = text[: _REASON_CHARS - 1] + "…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


@frozen
class DeviceRecord:
    """One device's part in one phase of a round.

    Parameters
    ----------
    node_id : int
        Flower's id of the node.
    bytes_down, bytes_up : int
        Bytes of the arrays that travelled to and from the device, as Flower carries
        them: frames, or plain arrays without compression. 0 up if nothing arrived.
    raw_bytes_up : int
        Bytes of the same upload uncompressed; 0 if nothing valid arrived.
    seconds_train : float
        In the app's own function, reported by the device.
    seconds_encode, seconds_decode : float
        Compressing the upload and decompressing the download, reported by the device.
    seconds_start : float
        Starting the process that handled the message, reported by the device.
    seconds_server : float
        Decoding and adding the upload, on the server.
    seconds_round_trip : float
        From sending the download to having the reply, by the server's clock.
    examples : float
        Weight of the update, as the device reported it.
    batch_size, local_steps : int
        That the device was asked to train with; 0 if it was left to its app.
    accuracy : float, optional
        Of the model, if its reply has a metric of that name or one alike.
    device_class : str
        By the virtual clock's profile; empty without a virtual clock.
    virtual_download, virtual_train, virtual_upload : float
        Seconds that the virtual clock charged; 0 without one.
    waiting : float
        Seconds from the device's own end to the end of the phase, by the virtual clock
        if there is one, else from measured round trips. 0 for a device that did not
        answer or was the last.
    dropped : str
        Why the reply was not used; empty if it was.
    telemetry : Telemetry
        What its board measured; as it is by default if nothing did.
    raw_bytes_down : int
        Bytes of all arrays that it was sent, uncompressed.
    """

    node_id: int
    bytes_down: int
    bytes_up: int = 0
    raw_bytes_up: int = 0
    seconds_train: float = 0.0
    seconds_encode: float = 0.0
    seconds_decode: float = 0.0
    seconds_start: float = 0.0
    seconds_server: float = 0.0
    seconds_round_trip: float = 0.0
    examples: float = 0.0
    batch_size: int = 0
    local_steps: int = 0
    accuracy: float | None = None
    device_class: str = ""
    virtual_download: float = 0.0
    virtual_train: float = 0.0
    virtual_upload: float = 0.0
    waiting: float = 0.0
    dropped: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)
    raw_bytes_down: int = 0

    @property
    def compression_ratio(self) -> float:
        """Uncompressed upload bytes over the bytes sent; 0 if nothing arrived."""
        return self.raw_bytes_up / self.bytes_up if self.bytes_up else 0.0

    @property
    def virtual_seconds(self) -> float:
        """Download, training and upload by the virtual clock."""
        return self.virtual_download + self.virtual_train + self.virtual_upload

    def to_row(self) -> dict[str, Any]:
        """Flat form for a CSV file."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        del own["telemetry"]
        measured = {
            _COLUMNS.get(name, name): value
            for name, value in self.telemetry.to_row().items()
        }
        return {**own, "compression_ratio": self.compression_ratio, **measured}


@frozen
class PhaseProgress:
    """How far a phase is.

    Parameters
    ----------
    server_round : int
        Counted from 1.
    phase : str
        See `RoundRecord`.
    asked, answered : int
        Devices that were sent a message, and those whose reply has come.
    refused : mapping of str to int
        How many replies were not used, by reason.
    """

    server_round: int
    phase: str
    asked: int
    answered: int
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Devices that have not replied yet."""
        return self.asked - self.answered


@frozen
class RoundRecord:
    """One phase of one round.

    Parameters
    ----------
    server_round : int
        Counted from 1.
    phase : str
        ``"train"``, ``"evaluate"``, or another that a strategy adds.
    seconds : float
        From the first message sent to the last reply processed.
    devices : tuple of DeviceRecord
        One for each device a message was sent to.
    virtual_seconds : float, optional
        Until the last device had answered or the deadline passed, by the virtual
        clock; `None` without one.
    seconds_server : float
        That the server computed: planning and packing, opening replies, aggregating
        and committing. Waiting for replies is not in it.
    """

    server_round: int
    phase: str
    seconds: float
    devices: tuple[DeviceRecord, ...] = field(default=())
    virtual_seconds: float | None = None
    seconds_server: float = 0.0

    @property
    def bytes_down(self) -> int:
        """Bytes sent to all devices."""
        return sum(device.bytes_down for device in self.devices)

    @property
    def bytes_up(self) -> int:
        """Bytes received from all devices."""
        return sum(device.bytes_up for device in self.devices)

    @property
    def raw_bytes_down(self) -> int:
        """Bytes of the models sent to all devices, uncompressed."""
        return sum(device.raw_bytes_down for device in self.devices)

    @property
    def raw_bytes_up(self) -> int:
        """Bytes of the uploads that were used, uncompressed."""
        return sum(device.raw_bytes_up for device in self.devices)

    @property
    def waiting(self) -> tuple[float, float]:
        """Mean and longest waiting of the devices that answered; 0 if none did."""
        waits = [d.waiting for d in self.devices if d.seconds_round_trip > 0]
        return (sum(waits) / len(waits), max(waits)) if waits else (0.0, 0.0)

    @property
    def dropped(self) -> dict[int, str]:
        """Reason by node id, of the devices whose reply was not used."""
        return {d.node_id: d.dropped for d in self.devices if d.dropped}
