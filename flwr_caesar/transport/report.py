"""What a device says of itself with a reply, and how that travels with the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from logging import WARNING
from typing import Any

from flwr.app import RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import log
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.protocol import UploadHeader
from flwr_caesar.sync.wire import Reader, opened, sealed
from flwr_caesar.telemetry import Telemetry, TelemetryError

from .abilities import Abilities
from .envelope import require_note
from .seconds import SECONDS_BYTES, pack_seconds, unpack_seconds
from .short import pack_mapping, unpack_mapping

# What a device may claim; see docs/trust.md.
_MAX_LABELS = 1 << 12
_MAX_PART_CHARS = 1 << 12
_MAX_TELEMETRY_CHARS = 1 << 11
_MAX_REPORT_BYTES = 1 << 17


@frozen
class DeviceReport:
    """What a device says of itself with a reply.

    Parameters
    ----------
    train, encode, decode : float
        Seconds it spent.
    start : float
        Seconds its process took to start before it saw the message, waiting for the
        message not counted; 0 for a process that was there already.
    labels : tuple of int
        Examples it has of each label; empty if it was not asked or declines.
    part : mapping
        JSON-serialisable, from the part that worked around the app.
    telemetry : Telemetry, optional
        What its board measured; `None` if nothing did.
    can : Abilities, optional
        What it can; `None` where that needs not be said.
    """

    train: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    start: float = 0.0
    labels: tuple[int, ...] = ()
    part: Mapping[str, Any] = field(default_factory=dict)
    telemetry: Telemetry | None = None
    can: Abilities | None = None

    @property
    def can_bytes(self) -> bytes:
        """What the device can, as a ledger keeps it; empty if it does not say."""
        return self.can.to_text().encode() if self.can else b""

    def note(self, header: UploadHeader) -> bytes:
        """Encode for the wire, behind the header of the upload."""
        seconds = pack_seconds(self.train, self.encode, self.decode, self.start)
        told: dict[str, Any] = {
            "labels": list(self.labels),
            "part": dict(self.part),
            "telemetry": self.telemetry.to_mapping() if self.telemetry else {},
            "can": self.can.to_mapping() if self.can else {},
        }
        told = {key: value for key, value in told.items() if value}
        return sealed(header.to_bytes() + seconds + pack_mapping(told))

    @staticmethod
    def header(content: RecordDict) -> UploadHeader:
        """Read the header of a reply's upload, and nothing of the report.

        Raises
        ------
        CodecError
            As `read` does where there is no header.
        """
        return UploadHeader.read(Reader(opened(require_note(content))))

    @classmethod
    def read(cls, content: RecordDict) -> tuple[DeviceReport, UploadHeader]:
        """Read a reply's report, and the header of its upload.

        Telemetry that is out of range is left out: no reply is lost for a sensor.

        Raises
        ------
        CodecError
            If the reply has none, or a field that is out of range.
        """
        reader = Reader(opened(require_note(content)))
        header = UploadHeader.read(reader)
        train, encode, decode, start = unpack_seconds(reader.take(SECONDS_BYTES))
        # A sensor's NaN costs its telemetry, which is checked below, not the reply.
        told = unpack_mapping(reader.rest(), most=_MAX_REPORT_BYTES, finite=False)
        if told.keys() - {"labels", "part", "telemetry", "can"}:
            raise CodecError("the device's report has unknown fields")
        given = told.get("labels", [])
        if not isinstance(given, list) or len(given) > _MAX_LABELS:
            raise CodecError("the device reports labels that are no short list")
        labels = tuple(n for n in given if type(n) is int and 0 <= n < 1 << 53)
        if len(labels) != len(given):
            raise CodecError("the device reports labels that are no counts")
        part = told.get("part", {})
        if not isinstance(part, dict) or len(json.dumps(part)) > _MAX_PART_CHARS:
            raise CodecError("the device's report is malformed: part")
        return cls(
            *(train, encode, decode, start, labels, part),
            _telemetry(told.get("telemetry", {})),
            Abilities.of(told["can"]) if "can" in told else None,
        ), header


def _telemetry(told: Any) -> Telemetry | None:
    """Return the telemetry in a report; `None` if it has none to be used."""
    try:
        if not isinstance(told, dict) or len(json.dumps(told)) > _MAX_TELEMETRY_CHARS:
            raise TelemetryError("it is no short mapping")
        return Telemetry.of(told) if told else None
    except TelemetryError as err:
        log(WARNING, "A device's telemetry is passed over: %s", err)
        return None
