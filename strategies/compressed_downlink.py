"""Models that go down by a lossy codec, and what it left out with the next one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import ArrayRecord

from flwr_caesar.codec import Codec, CodecError, get_codec
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Array, Arrays
from flwr_caesar.sync.device import decode_whole
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import Version
from flwr_caesar.sync.strategy_state import StrategyState
from flwr_caesar.transport import frame_to_record

from .downlink import Downlink

_ERROR = "downlink-error/"
_FRAME = "downlink-frame"


class CompressedDownlink(Downlink):
    """Send ``C(y)``, ``y = x + feedback e``, for a model ``x``; ``e`` is ``y - C(y)``.

    Who leads the rounds calls `compress` on each new model and goes on with what it
    returns, so that server and devices hold the same. A model that did not pass there,
    such as the first one, is sent whole.

    Parameters
    ----------
    codec : Codec
        ``C``.
    feedback : float
        In ``[0, 1]``. 0: ``C(x)`` is sent, and nothing is kept.

    Attributes
    ----------
    error : dict of str to ndarray
        ``e`` by tensor name.
    """

    def __init__(self, codec: Codec, *, feedback: float = 1.0) -> None:
        self.codec = codec
        self.feedback = feedback
        self.error: dict[str, Array] = {}
        self._made: tuple[bytes, bytes] | None = None
        self._version: Version | None = None
        self._record: ArrayRecord | None = None

    def __str__(self) -> str:
        kept = "the whole" if self.feedback == 1 else f"{self.feedback:g}"
        fed = f"{kept} of the error fed back" if self.feedback else "no error feedback"
        return f"{self.codec}, {fed}"

    @property
    def version(self) -> Version | None:
        """See `Downlink.version`."""
        return self._version

    def compress(self, model: Arrays) -> dict[str, Array]:
        """Return what devices will hold of a model, and remember the rest."""
        meant = {
            name: self._plus(array, self.error.get(name))
            for name, array in model.items()
        }
        frame, _ = self.codec.encode(meant)
        decoded, _ = self.codec.decode(frame)
        self.error = {
            name: np.asarray(array - decoded[name])
            for name, array in meant.items()
            if self.feedback and array.dtype.name in FLOAT_DTYPES
        }
        self._made = model_digest(decoded), frame
        return dict(decoded)

    def publish(self, model: Mapping[str, Array], number: int) -> Version:
        """See `Downlink.publish`."""
        digest = model_digest(model)
        if self._made is None or self._made[0] != digest:
            self._made = digest, get_codec("dense").encode(model, finite=False)[0]
        self._record = frame_to_record(self._made[1])
        self._version = number, digest
        return self._version

    def frame(self, node_id: int, header: DownloadHeader) -> ArrayRecord:
        """See `Downlink.frame`."""
        if self._record is None:
            raise ValueError("nothing is published yet")
        return self._record

    def state(self) -> StrategyState:
        """See `Downlink.state`."""
        arrays = {_ERROR + name: array for name, array in self.error.items()}
        if self._made is not None:
            arrays[_FRAME] = np.frombuffer(self._made[1], np.uint8)
        return StrategyState({}, arrays)

    def restore(self, state: StrategyState) -> None:
        """See `Downlink.restore`."""
        if _FRAME not in state.arrays:
            return
        try:
            frame = state.arrays[_FRAME].astype(np.uint8, casting="safe").tobytes()
            decoded = decode_whole(frame, None)
        except (CodecError, TypeError) as err:
            raise DamagedStateError(f"the published model is damaged: {err}") from err
        self._made = model_digest(decoded), frame
        self.error = {
            name.removeprefix(_ERROR): array
            for name, array in state.arrays.items()
            if name.startswith(_ERROR)
        }

    def _plus(self, array: Array, error: Array | None) -> Array:
        if error is None or not self.feedback:
            return array
        if self.feedback != 1:
            error = error * error.dtype.type(self.feedback)
        return np.asarray(array + error)
