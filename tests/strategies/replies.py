"""Replies that say something else than their device did, in good form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flwr.app import Message

from flwr_caesar.sync.protocol import UploadHeader
from flwr_caesar.sync.wire import sealed
from flwr_caesar.transport import (
    DeviceReport,
    frame_to_record,
    record_to_frame,
    require_note,
    with_note,
)
from flwr_caesar.transport.seconds import pack_seconds
from flwr_caesar.transport.short import pack_mapping


def header_of(reply: Message) -> UploadHeader:
    """Return what a reply says of its upload."""
    return DeviceReport.read(reply.content)[1]


def put_note(reply: Message, note: bytes) -> None:
    """Say something else in a reply."""
    leads = "arrays" if "arrays" in reply.content else ""
    reply.content = with_note(reply.content, note, leads=leads)


def put_frame(reply: Message, frame: bytes) -> None:
    """Send another frame under the note of a reply."""
    note = require_note(reply.content)
    reply.content["arrays"] = frame_to_record(frame, note)


def lose_note(reply: Message) -> None:
    """Send a frame that nothing is said of."""
    frame = record_to_frame(reply.content["arrays"])
    reply.content["arrays"] = frame_to_record(frame)


def change_header(reply: Message, **changes: Any) -> None:
    """Say something else of an upload, with a checksum that fits."""
    report, header = DeviceReport.read(reply.content)
    put_note(reply, report.note(replace(header, **changes)))


def claim(reply: Message, *, seconds: float = 0.0, **told: Any) -> None:
    """Say something else of the device."""
    header = header_of(reply).to_bytes()
    put_note(
        reply, sealed(header + pack_seconds(seconds, 0, 0, 0) + pack_mapping(told))
    )
