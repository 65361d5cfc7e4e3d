"""The device's half of Caesar as published: models recovered from one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from logging import INFO
from typing import ClassVar

from flwr.app import RecordDict

from flwr_caesar.codec import CodecError, Layout, get_codec, inspect_frame
from flwr_caesar.codec.codecs.caesar_model import with_stale
from flwr_caesar.codec.contract.base import read_layout
from flwr_caesar.codec.contract.frame import FrameReader
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.flower import log
from flwr_caesar.frozen import frozen
from flwr_caesar.methods.recovery import RecoverySettings
from flwr_caesar.methods.settings import Settings
from flwr_caesar.sync.device import Received, decode_whole
from flwr_caesar.sync.part import completed
from flwr_caesar.sync.state import DeviceState

from .method import DeviceMethod, extras

_TRAINED = "trained/"
_GONE = "an upload that did not count is not sent again, as the server asks"


@frozen
class Recovery(DeviceMethod):
    """Recover a model that Caesar compressed, from the device's own last model.

    The model that the device trained last is kept; the next download is decoded with
    it as `flwr_caesar.codec.codecs.caesar_model.CaesarModelCodec` says.

    Parameters
    ----------
    settings : RecoverySettings
        From the server's plan.
    """

    settings: RecoverySettings = field(default_factory=RecoverySettings)

    settings_type: ClassVar[type[Settings]] = RecoverySettings

    def decode(
        self, state: DeviceState | None, frame: bytes, base: Arrays | None
    ) -> Mapping[str, Array]:
        """Return the recovered model.

        A device that has not trained yet recovers it from the model it holds.
        """
        if base is None:
            return decode_whole(frame, None)
        own = extras(state, _TRAINED) or base
        codec = get_codec(inspect_frame(frame).config)
        held = Layout.of(base)
        sent = read_layout(FrameReader(frame), None, max(held.nbytes, 1))
        if any(spec.name not in own for spec in sent.tensors):
            raise CodecError("the download has tensors that are not held here")
        stale = with_stale(sent, {spec.name: own[spec.name] for spec in sent.tensors})
        return completed(codec.decode(frame, stale, finite=False)[0], base)

    def before(
        self, received: Received, content: RecordDict
    ) -> tuple[DeviceState, RecordDict]:
        """Give up uploads that did not count, if the plan says so."""
        state = received.state
        if not self.settings.resend_lost and state.residual:
            log(INFO, "flwr-caesar: %s", _GONE)
            state = replace(state, residual={}, longest=0.0)
        return state, content

    def after(self, state: DeviceState, trained: Arrays, sent: Arrays) -> DeviceState:
        """Keep the trained model."""
        return replace(
            state, extras={_TRAINED + name: array for name, array in trained.items()}
        )
