"""How frames and plans travel inside Flower messages.

One frame is one Flower ``Array`` with its own serialisation type, so that a party that
does not know us fails loudly instead of averaging bytes, and a model of a hundred
tensors is one object on the wire instead of a hundred.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from .codec import CodecError
from .codec.layout import Arrays

FRAME_STYPE = "flwr_caesar.frame"
RECORD_KEY = "flwr-caesar"
PROTOCOL_VERSION = 1
_FRAME_KEY = "frame"


def frame_to_record(frame: bytes) -> ArrayRecord:
    """Wrap a frame as an ArrayRecord of one Array."""
    return ArrayRecord({_FRAME_KEY: Array("uint8", (len(frame),), FRAME_STYPE, frame)})


def is_frame_record(record: ArrayRecord) -> bool:
    """Whether a record was made by `frame_to_record`."""
    return any(array.stype == FRAME_STYPE for array in record.values())


def record_to_frame(record: ArrayRecord) -> bytes:
    """Return the frame in a record.

    Raises
    ------
    CodecError
        If the record is not exactly one frame.
    """
    if list(record) != [_FRAME_KEY] or not is_frame_record(record):
        raise CodecError(
            "reply holds plain arrays, not a frame: add compression_mod to the "
            "ClientApp, ClientApp(mods=[compression_mod])"
        )
    return record[_FRAME_KEY].data


def record_to_arrays(record: ArrayRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a plain record by name."""
    return {name: array.numpy() for name, array in record.items()}


def arrays_to_record(arrays: Arrays) -> ArrayRecord:
    """Return a plain record of named arrays."""
    return ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})


def record_nbytes(record: ArrayRecord) -> int:
    """Bytes of a record's arrays as Flower carries them."""
    return sum(len(array.data) for array in record.values())


def arrays_nbytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message as Flower carries them."""
    return sum(record_nbytes(record) for record in content.array_records.values())


@dataclass(frozen=True)
class Plan:
    """What the server asks of a device's compression.

    Parameters
    ----------
    upload : mapping, optional
        Configuration of the codec for the update; `None` for a message whose reply
        carries no arrays.
    error_feedback : bool
        Whether the device keeps what the codec left out and adds it next time.
    """

    upload: Mapping[str, Any] | None = None
    error_feedback: bool = False

    def to_record(self) -> ConfigRecord:
        """Encode for the wire."""
        return ConfigRecord(
            {
                "protocol": PROTOCOL_VERSION,
                "upload": json.dumps(self.upload) if self.upload else "",
                "error-feedback": self.error_feedback,
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> Plan:
        """Read the plan of a message.

        Raises
        ------
        CodecError
            If the message has none, or one of another protocol version.
        """
        record = _require_record(content)
        upload = record.get("upload")
        if not isinstance(upload, str):
            raise CodecError("the server's plan names no upload codec")
        try:
            config = json.loads(upload) if upload else None
        except ValueError as err:
            raise CodecError(f"the server's plan is malformed: {err}") from err
        if config is not None and not isinstance(config, dict):
            raise CodecError("the server's plan is malformed: codec is no mapping")
        return cls(config, bool(record.get("error-feedback", False)))


@dataclass(frozen=True)
class Timing:
    """Seconds that a device spent, as it reports them."""

    train: float = 0.0
    encode: float = 0.0
    decode: float = 0.0

    def to_record(self) -> ConfigRecord:
        """Encode for the wire."""
        return ConfigRecord(
            {
                "protocol": PROTOCOL_VERSION,
                "seconds-train": self.train,
                "seconds-encode": self.encode,
                "seconds-decode": self.decode,
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> Timing:
        """Read a reply's timing.

        Raises
        ------
        CodecError
            If the reply has none, one of another protocol version, or a time that is
            not a finite number of seconds.
        """
        record = _require_record(content)
        seconds = []
        for key in ("seconds-train", "seconds-encode", "seconds-decode"):
            value = record.get(key)
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise CodecError(f"the device reports {key} as {value!r}")
            seconds.append(float(value))
        return cls(*seconds)


def _require_record(content: RecordDict) -> ConfigRecord:
    record = content.get(RECORD_KEY)
    if not isinstance(record, ConfigRecord):
        raise CodecError(f"message has no {RECORD_KEY!r} record")
    version = record.get("protocol")
    if version != PROTOCOL_VERSION:
        raise CodecError(
            f"message of protocol {version!r}, this side speaks {PROTOCOL_VERSION}: "
            "install the same flwr-caesar on both sides"
        )
    return record
