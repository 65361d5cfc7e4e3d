"""The device's half of CAFe: predict from what the server sends along."""

from __future__ import annotations

from dataclasses import replace

from flwr.app import ArrayRecord, RecordDict

from flwr_caesar.frozen import frozen
from flwr_caesar.sync.device import Received
from flwr_caesar.sync.state import DeviceState
from flwr_caesar.transport import PREDICTION_KEY, record_to_arrays

from .method import DeviceMethod


@frozen
class SharedPrediction(DeviceMethod):
    """Take the record ``"prediction"`` of a request as the upload codec's memory.

    It stays in the state with the upload, which cannot be decoded without it, until
    the upload's fate is known. While an upload of another prediction waits, the next
    one is encoded from nothing.
    """

    def before(
        self, received: Received, content: RecordDict
    ) -> tuple[DeviceState, RecordDict]:
        """Return the state with the prediction, and the content without it."""
        state, rest = received.state, content.copy()
        record = rest.pop(PREDICTION_KEY, None)
        if isinstance(record, ArrayRecord) and not state.pending:
            held = record_to_arrays(record)
            state = replace(state, codec_version=1, codec_arrays=held)
        return state, rest
