"""How frames and plans travel inside Flower messages.

One frame is one Flower ``Array`` with its own serialisation type, so that a party that
does not know us fails loudly instead of averaging bytes, and a model of a hundred
tensors is one object on the wire instead of a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from .codec import CodecError, get_codec, inspect_frame
from .codec.contract.layout import Arrays, to_dtype
from .flower import log
from .sync.protocol import DownloadHeader, UploadHeader
from .sync.state import MODEL_PAYLOAD, UPDATE_PAYLOAD
from .telemetry import Telemetry, TelemetryError

FRAME_STYPE = "flwr_caesar.frame"
RECORD_KEY = "flwr-caesar"
PROTOCOL_VERSION = 2
# Phases of a round with control variates, and the records that these add to a message.
TRAIN, SETTLE, EVALUATE = "train", "settle", "evaluate"
CONTROL_KEY = "control"
MEAN_KEY = "mean"
_FRAME_KEY = "frame"
# What a device may claim; see docs/trust.md.
_MAX_LABELS = 1 << 12
_MAX_PART_CHARS = 1 << 12
_MAX_SECONDS = 1e7
_MAX_TELEMETRY_CHARS = 1 << 11


def frame_to_record(frame: bytes) -> ArrayRecord:
    """Wrap a frame as an ArrayRecord of one Array."""
    return ArrayRecord({_FRAME_KEY: Array("uint8", (len(frame),), FRAME_STYPE, frame)})


def record_to_frame(record: ArrayRecord) -> bytes:
    """Return the frame in a record.

    Raises
    ------
    CodecError
        If the record is not exactly one frame.
    """
    if not is_frame(record):
        raise CodecError(
            "reply holds plain arrays, not a frame: add compression_mod to the "
            "ClientApp, ClientApp(mods=[compression_mod])"
        )
    return record[_FRAME_KEY].data


def record_to_arrays(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a plain record by name.

    Raises
    ------
    CodecError
        If an array is malformed, with its name.
    """
    return {name: _to_numpy(name, array) for name, array in record.items()}


def _to_numpy(name: str, array: Array) -> np.ndarray[Any, Any]:
    try:
        found = array.numpy()
    except (TypeError, ValueError, EOFError, OSError, MemoryError) as err:
        raise CodecError(f"array {name!r} cannot be read: {err}") from err
    if found.dtype.kind == "V" and array.dtype == "bfloat16":
        # Flower keeps such an array, but its file format forgets what it is.
        return found.view(to_dtype("bfloat16"))
    return found


def arrays_to_record(arrays: Arrays) -> ArrayRecord:
    """Return a plain record of named arrays."""
    return ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})


def widened_record(arrays: Arrays) -> ArrayRecord:
    """Return a plain record that Flower's strategies can compute with.

    They know float16, float32 and float64; tensors in bfloat16 become float32, which
    holds the same values.
    """
    return arrays_to_record(
        {
            name: a.astype(np.float32) if a.dtype.name == "bfloat16" else a
            for name, a in arrays.items()
        }
    )


def record_nbytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays as Flower carries them."""
    return sum(len(array.data) for array in record.values())


def arrays_nbytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message as Flower carries them."""
    return sum(record_nbytes(record) for record in content.array_records.values())


def message_nbytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message, and of our record, as Flower carries them."""
    ours = content.config_records.get(RECORD_KEY)
    return arrays_nbytes(content) + (len(ours.deflate()) if ours is not None else 0)


def exact_record(record: ArrayRecord) -> ArrayRecord:
    """Return a record as one exact frame, where that is possible and shorter."""
    if is_frame(record) or not len(record):
        return record
    try:
        framed = frame_to_record(
            get_codec("dense").encode(record_to_arrays(record), finite=False)[0]
        )
    except CodecError:
        return record
    return min(framed, record, key=record_nbytes)


def plain_record(record: ArrayRecord) -> ArrayRecord:
    """Return a record with plain arrays, of a frame that needs no state.

    Raises
    ------
    CodecError
        If the frame is damaged.
    """
    if not is_frame(record):
        return record
    frame = record_to_frame(record)
    codec = get_codec(inspect_frame(frame).config)
    return arrays_to_record(codec.decode(frame, finite=False)[0])


def is_frame(record: ArrayRecord) -> bool:
    """Whether a record is one frame."""
    return list(record) == [_FRAME_KEY] and record[_FRAME_KEY].stype == FRAME_STYPE


@dataclass(frozen=True)
class Plan:
    """What the server asks of a device's compression.

    Parameters
    ----------
    record : str
        Name of the ArrayRecord that the app is to see.
    upload : mapping
        Configuration of the codec for the update; empty for a message whose reply
        carries no arrays.
    error_feedback : bool
        Whether the device keeps what the codec left out and adds it next time.
    max_residual_age : int
        Phases after which a device that was not asked gives its residual up; 0: never.
    payload : {"update", "model"}
        Whether the device encodes ``arrays out - arrays in``, or the arrays it returns.
    exact : bool
        Whether the download decodes to the very model that the header names; False
        where each device recovers an approximation of its own.
    call_app : bool
        Whether the app sees the message; False: the device only takes the model in.
    part : str
        Which of `flwr_caesar.methods` works around the app; empty for none.
    settings : mapping
        JSON-serialisable settings of that part.
    start : mapping
        How a device without state makes the first model from its own initial arrays;
        empty if it is to be sent one.
    ask_labels : bool
        Whether the server would like to know how often the device has each label.
    """

    record: str = "arrays"
    upload: Mapping[str, Any] = field(default_factory=dict)
    error_feedback: bool = False
    max_residual_age: int = 0
    payload: str = UPDATE_PAYLOAD
    exact: bool = True
    call_app: bool = True
    part: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    ask_labels: bool = False

    def to_record(self, header: DownloadHeader) -> ConfigRecord:
        """Encode for the wire, together with the header of the download.

        What has its default value is left out.
        """
        fields: dict[str, Any] = {
            "record": self.record,
            "upload": _packed(self.upload or {}),
            "error-feedback": self.error_feedback,
            "max-residual-age": self.max_residual_age,
            "payload": self.payload,
            "exact": self.exact,
            "call-app": self.call_app,
            "part": self.part,
            "settings": _packed(self.settings),
            "start": _packed(self.start),
            "ask-labels": self.ask_labels,
        }
        told: dict[str, Any] = {
            key: value for key, value in fields.items() if value != _DEFAULTS[key]
        }
        return ConfigRecord({"protocol": PROTOCOL_VERSION, **told, **header.to_dict()})

    @classmethod
    def from_content(cls, content: RecordDict) -> Plan:
        """Read the plan of a message.

        Raises
        ------
        CodecError
            If the message has none, or one of another protocol version.
        """
        record = require_record(content)
        fields = {key: record.get(key, default) for key, default in _DEFAULTS.items()}
        for key, default in _DEFAULTS.items():
            if type(fields[key]) is not type(default):
                raise CodecError(f"the server's plan is malformed: {key}")
        if fields["max-residual-age"] < 0:
            raise CodecError("the server's plan is malformed: max-residual-age")
        if fields["payload"] not in (UPDATE_PAYLOAD, MODEL_PAYLOAD):
            raise CodecError(f"the server's plan asks for {fields['payload']!r:.40}")
        for key in ("upload", "settings", "start"):
            fields[key] = _mapping(key, fields[key])
        return cls(**{key.replace("-", "_"): value for key, value in fields.items()})


# Names and kinds on the wire, where mappings are JSON text.
_DEFAULTS: dict[str, Any] = {
    "record": "arrays",
    "upload": "",
    "error-feedback": False,
    "max-residual-age": 0,
    "payload": UPDATE_PAYLOAD,
    "exact": True,
    "call-app": True,
    "part": "",
    "settings": "",
    "start": "",
    "ask-labels": False,
}


def _packed(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping, separators=(",", ":")) if mapping else ""


def _mapping(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as err:
        raise CodecError(f"the record is malformed: {key}: {err}") from err
    if not isinstance(value, dict):
        raise CodecError(f"the record is malformed: {key} is no mapping")
    return value


@dataclass(frozen=True)
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
    """

    train: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    start: float = 0.0
    labels: tuple[int, ...] = ()
    part: Mapping[str, Any] = field(default_factory=dict)
    telemetry: Telemetry | None = None

    def to_record(self, header: UploadHeader) -> ConfigRecord:
        """Encode for the wire, together with the header of the upload."""
        told: dict[str, Any] = {
            "seconds": [self.train, self.encode, self.decode, self.start],
            "labels": list(self.labels),
            "part": _packed(self.part),
            "telemetry": _packed(self.telemetry.to_mapping()) if self.telemetry else "",
        }
        told = {key: value for key, value in told.items() if value}
        return ConfigRecord({**header.to_dict(), "protocol": PROTOCOL_VERSION, **told})

    @classmethod
    def from_content(cls, content: RecordDict) -> DeviceReport:
        """Read a reply's report.

        Telemetry that is out of range is left out: no reply is lost for a sensor.

        Raises
        ------
        CodecError
            If the reply has none, one of another protocol version, or a field that is
            out of range.
        """
        record = require_record(content)
        train, encode, decode, start = _seconds(record)
        given = record.get("labels", [])
        if not isinstance(given, list) or len(given) > _MAX_LABELS:
            raise CodecError("the device reports labels that are no short list")
        labels = tuple(n for n in given if isinstance(n, int) and 0 <= n < 1 << 53)
        if len(labels) != len(given):
            raise CodecError("the device reports labels that are no counts")
        part = record.get("part", "")
        if not isinstance(part, str) or len(part) > _MAX_PART_CHARS:
            raise CodecError("the device's report is malformed: part")
        return cls(
            *(train, encode, decode, start, labels),
            _mapping("part", part),
            read_telemetry(record),
        )


def read_telemetry(record: ConfigRecord) -> Telemetry | None:
    """Return the telemetry in a reply's record; `None` if it has none to be used."""
    text = record.get("telemetry", "")
    try:
        if not isinstance(text, str) or len(text) > _MAX_TELEMETRY_CHARS:
            raise TelemetryError("it is no short text")
        return Telemetry.of(_mapping("telemetry", text)) if text else None
    except (CodecError, TelemetryError) as err:
        log(WARNING, "A device's telemetry is passed over: %s", err)
        return None


def _seconds(record: ConfigRecord) -> list[float]:
    values = record.get("seconds")
    if not isinstance(values, list) or len(values) != 4:
        raise CodecError("the device does not report its seconds")
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value <= _MAX_SECONDS:
            raise CodecError(f"the device reports {value!r:.40} seconds")
    return [float(value) for value in values]


def require_record(content: RecordDict) -> ConfigRecord:
    """Return our record of a message.

    Raises
    ------
    CodecError
        If there is none, or it is of another protocol version.
    """
    record = content.get(RECORD_KEY)
    if not isinstance(record, ConfigRecord):
        raise CodecError(f"message has no {RECORD_KEY!r} record")
    version = record.get("protocol")
    if version != PROTOCOL_VERSION:
        raise CodecError(
            f"message of protocol {version!r:.40}, this side speaks "
            f"{PROTOCOL_VERSION}: install the same flwr-caesar on both sides"
        )
    return record
