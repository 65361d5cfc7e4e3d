"""How frames, plans and reports travel inside Flower messages."""

from .abilities import Abilities
from .arrays import (
    arrays_nbytes,
    arrays_to_record,
    exact_record,
    message_nbytes,
    plain_record,
    record_nbytes,
    record_to_arrays,
    rounded_record,
    told_nbytes,
    widened_record,
)
from .envelope import (
    FRAME_STYPE,
    NOTE_KEY,
    frame_to_record,
    is_frame,
    note_of,
    record_to_frame,
    require_note,
    with_note,
    without_note,
)
from .plan import (
    CONTROL_KEY,
    EVALUATE,
    MEAN_KEY,
    MOVE_CONTROL,
    PREDICTION_KEY,
    PROTOCOL_VERSION,
    TRAIN,
    Plan,
)
from .report import DeviceReport

__all__ = [
    "CONTROL_KEY",
    "EVALUATE",
    "FRAME_STYPE",
    "MEAN_KEY",
    "MOVE_CONTROL",
    "NOTE_KEY",
    "PREDICTION_KEY",
    "PROTOCOL_VERSION",
    "TRAIN",
    "Abilities",
    "DeviceReport",
    "Plan",
    "arrays_nbytes",
    "arrays_to_record",
    "exact_record",
    "frame_to_record",
    "is_frame",
    "message_nbytes",
    "note_of",
    "plain_record",
    "record_nbytes",
    "record_to_arrays",
    "record_to_frame",
    "require_note",
    "rounded_record",
    "told_nbytes",
    "widened_record",
    "with_note",
    "without_note",
]
