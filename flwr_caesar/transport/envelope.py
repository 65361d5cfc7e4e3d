"""How frames, and what goes with them, are put into Flower messages.

One frame is one Flower ``Array`` with its own serialisation type, so that a party that
does not know us fails loudly instead of averaging bytes, and a model of a hundred
tensors is one object on the wire instead of a hundred.

What else we say is one *note* of bytes for each message. A record of its own would cost
more than most notes: it goes into a ConfigRecord that is there anyway, or leads a frame
that is for this message alone.
"""

from __future__ import annotations

import struct

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.frame import head_size
from flwr_caesar.flower import arrays_in, configs_in, record_of

from .short import lengthen, shorten

FRAME_STYPE = "flwr_caesar.frame"
NOTE_KEY = "csar"
"""Name of our entry in a ConfigRecord, and of our own ConfigRecord."""

MAX_SHORT_BYTES = 1 << 12
"""Longest frame that is shortened."""

MAX_LED_BYTES = 1 << 20
"""Longest frame that a note leads; a longer one is not copied for it."""

_FRAME_KEY = "frame"
_OWN_KEY = ""
_OLD_RECORD = "flwr-caesar"
# A frame that is as it is begins with a letter.
_LED, _SHORT = 1, 2
_NOTE_SIZE = struct.Struct(">H")
_FRAME_STARTS = 0x43


def frame_to_record(frame: bytes, note: bytes = b"") -> ArrayRecord:
    """Wrap a frame as an ArrayRecord of one Array.

    Parameters
    ----------
    frame : bytes
        The frame.
    note : bytes
        Of fewer than 65,536 bytes, to lead it; see `note_of`.
    """
    body, kind = frame, 0
    if len(frame) <= MAX_SHORT_BYTES:
        short = shorten(frame, head=head_size(frame))
        if len(short) < len(frame):
            body, kind = short, _SHORT
    return _record(body, kind, note)


def _record(body: bytes, kind: int, note: bytes) -> ArrayRecord:
    lead = _NOTE_SIZE.pack(len(note)) + note if note else b""
    kind |= _LED * bool(note)
    data = b"".join([bytes([kind]), lead, body]) if kind else body
    array = Array("uint8", (len(data),), FRAME_STYPE, data)
    return record_of({_FRAME_KEY: array})


def record_to_frame(record: ArrayRecord) -> bytes:
    """Return the frame in a record.

    Raises
    ------
    CodecError
        If the record is not exactly one frame.
    """
    body, kind = _body(record)
    return lengthen(body, most=MAX_SHORT_BYTES) if kind else body


def _body(record: ArrayRecord) -> tuple[bytes, int]:
    """Return what the Array holds but for its note, and whether that is `_SHORT`."""
    if not is_frame(record):
        raise CodecError(
            "reply holds plain arrays, not a frame: add compression_mod to the "
            "ClientApp, ClientApp(mods=[compression_mod])"
        )
    data = record[_FRAME_KEY].data
    kind, start = _kind(data)
    if kind & _LED:
        start += _NOTE_SIZE.size + len(_lead(data))
    return data[start:] if start else data, kind & _SHORT


def is_frame(record: ArrayRecord) -> bool:
    """Whether a record is one frame."""
    return list(record) == [_FRAME_KEY] and record[_FRAME_KEY].stype == FRAME_STYPE


def with_note(content: RecordDict, note: bytes, *, leads: str = "") -> RecordDict:
    """Return a content with a note, or with another one in its place.

    Parameters
    ----------
    content : RecordDict
        Of a message; not changed.
    note : bytes
        Of fewer than 65,536 bytes.
    leads : str
        Name of the ArrayRecord with the frame that it may lead; empty for none.
    """
    noted = without_note(content)
    frame = arrays_in(noted).get(leads) if leads else None
    hosts = [name for name in configs_in(noted) if name != NOTE_KEY]
    if frame is not None and len(note) <= 0xFFFF and _nbytes(frame) <= MAX_LED_BYTES:
        noted[leads] = _record(*_body(frame), note)
    elif hosts:
        config = configs_in(noted)[hosts[0]]
        noted[hosts[0]] = ConfigRecord({**config, NOTE_KEY: note})
    else:
        noted[NOTE_KEY] = ConfigRecord({_OWN_KEY: note})
    return noted


def note_of(content: RecordDict) -> bytes | None:
    """Return the note of a content; `None` if it has none.

    Raises
    ------
    CodecError
        If it is there and not what we write, or is of a protocol before there were
        notes.
    """
    if _OLD_RECORD in configs_in(content):
        raise CodecError(
            "message of protocol 1, this side speaks another: install the same "
            "flwr-caesar on both sides"
        )
    for name, config in configs_in(content).items():
        key = _OWN_KEY if name == NOTE_KEY else NOTE_KEY
        if key in config:
            note = config[key]
            if not isinstance(note, bytes):
                raise CodecError(f"the entry {NOTE_KEY!r} of the message is no header")
            return note
    for record in arrays_in(content).values():
        if is_frame(record) and _kind(record[_FRAME_KEY].data)[0] & _LED:
            return _lead(record[_FRAME_KEY].data)
    return None


def require_note(content: RecordDict) -> bytes:
    """Return our note of a message.

    Raises
    ------
    CodecError
        If there is none.
    """
    note = note_of(content)
    if note is None:
        raise CodecError(f"message has no {NOTE_KEY!r} entry")
    return note


def without_note(content: RecordDict) -> RecordDict:
    """Return a content without its note; one that leads a frame stays with it."""
    plain = content.copy()
    for name, config in configs_in(content).items():
        if name == NOTE_KEY and _OWN_KEY in config:
            del plain[name]
        elif NOTE_KEY in config:
            rest = {key: value for key, value in config.items() if key != NOTE_KEY}
            plain[name] = ConfigRecord(rest)
    return plain


def note_nbytes(content: RecordDict) -> int:
    """Return the bytes of a note beside the arrays of a content."""
    for name, config in configs_in(content).items():
        note = config.get(_OWN_KEY if name == NOTE_KEY else NOTE_KEY)
        if isinstance(note, bytes):
            return len(note)
    return 0


def _nbytes(record: ArrayRecord) -> int:
    return sum(len(array.data) for array in record.values())


def _kind(data: bytes) -> tuple[int, int]:
    """Return what is in the data of a frame's Array, and where that begins."""
    if not data or data[0] == _FRAME_STARTS:
        return 0, 0
    if not _LED <= data[0] <= (_LED | _SHORT):
        raise CodecError(f"a frame of an unknown kind, {data[0]}")
    return data[0], 1


def _lead(data: bytes) -> bytes:
    start = 1 + _NOTE_SIZE.size
    if len(data) < start:
        raise CodecError("the note before a frame is truncated")
    (size,) = _NOTE_SIZE.unpack_from(data, 1)
    if len(data) < start + size:
        raise CodecError("the note before a frame is truncated")
    return data[start : start + size]
