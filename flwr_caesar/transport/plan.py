"""What the server asks of a device, and how that travels with the header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from flwr.app import RecordDict

from flwr_caesar.codec import CodecError
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import MODEL_PAYLOAD, UPDATE_PAYLOAD
from flwr_caesar.sync.wire import Reader, opened, sealed

from .envelope import require_note
from .short import pack_mapping, unpack_mapping

PROTOCOL_VERSION = 2
# Phases of a round with control variates; the one in which they move is called "settle"
# on the wire and in records. Then the records that methods add to a message.
TRAIN, MOVE_CONTROL, EVALUATE = "train", "settle", "evaluate"
CONTROL_KEY = "control"
MEAN_KEY = "mean"
PREDICTION_KEY = "prediction"


@frozen
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

    def note(self, header: DownloadHeader) -> bytes:
        """Encode for the wire, behind the header of the download.

        What has its default value is left out.
        """
        fields: dict[str, Any] = {
            "record": self.record,
            "upload": dict(self.upload),
            "max-residual-age": self.max_residual_age,
            "part": self.part,
            "settings": dict(self.settings),
            "start": dict(self.start),
        }
        told = {k: value for k, value in fields.items() if value != _DEFAULTS[k]}
        flags = (
            self.error_feedback,
            self.payload == MODEL_PAYLOAD,
            not self.exact,
            not self.call_app,
            self.ask_labels,
        )
        bits = sum(bit << index for index, bit in enumerate(flags))
        head = bytes([PROTOCOL_VERSION, bits])
        return sealed(head + header.to_bytes() + pack_mapping(told))

    @classmethod
    def read(cls, content: RecordDict) -> tuple[Plan, DownloadHeader]:
        """Read the plan of a message, and the header of its download.

        Raises
        ------
        CodecError
            If the message has none, or one of another protocol version.
        """
        reader = Reader(opened(require_note(content)))
        version, bits = reader.u8(), reader.u8()
        if version != PROTOCOL_VERSION:
            raise CodecError(
                f"message of protocol {version}, this side speaks {PROTOCOL_VERSION}: "
                "install the same flwr-caesar on both sides"
            )
        if bits >= 1 << _PLAN_FLAGS:
            raise CodecError("the server's plan is malformed: flags")
        header = DownloadHeader.read(reader)
        told = unpack_mapping(reader.rest(), most=_MAX_PLAN_BYTES)
        if told.keys() - _DEFAULTS.keys():
            raise CodecError("the server's plan is malformed: it has unknown fields")
        fields = {**_DEFAULTS, **told}
        for key, default in _DEFAULTS.items():
            if type(fields[key]) is not type(default):
                raise CodecError(f"the server's plan is malformed: {key}")
        if fields["max-residual-age"] < 0:
            raise CodecError("the server's plan is malformed: max-residual-age")
        feedback, model, inexact, no_app, labels = (
            bool(bits & 1 << index) for index in range(_PLAN_FLAGS)
        )
        plan = cls(
            error_feedback=feedback,
            payload=MODEL_PAYLOAD if model else UPDATE_PAYLOAD,
            exact=not inexact,
            call_app=not no_app,
            ask_labels=labels,
            **{key.replace("-", "_"): value for key, value in fields.items()},
        )
        return plan, header


_PLAN_FLAGS = 5
_MAX_PLAN_BYTES = 1 << 20
# Names and kinds on the wire.
_DEFAULTS: dict[str, Any] = {
    "record": "arrays",
    "upload": {},
    "max-residual-age": 0,
    "part": "",
    "settings": {},
    "start": {},
}
