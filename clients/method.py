"""The device's half of a method: what happens around the app's own training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from flwr.app import RecordDict

from flwr_caesar.codec import Codec, inspect_frame
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.codec.published.lattice_model import ID as LATTICE_MODEL
from flwr_caesar.codec.published.lattice_model import decode_model
from flwr_caesar.frozen import frozen
from flwr_caesar.methods.settings import Settings
from flwr_caesar.sync.device import Received, decode_whole
from flwr_caesar.sync.state import DeviceState

from .shared_downloads import SharedDownloads

_downloads = SharedDownloads()


@frozen
class DeviceMethod:
    """The device's half of a method; this one adds nothing.

    One object lives for one message. What a method keeps between messages it puts into
    `DeviceState.extras`, which is saved together with the residual.

    Parameters
    ----------
    settings : Settings
        From the server's plan, checked.

    Attributes
    ----------
    settings_type : type
        What the settings of this method are.
    """

    settings: Settings = field(default_factory=Settings)

    settings_type: ClassVar[type[Settings]] = Settings

    def decode(
        self, state: DeviceState | None, frame: bytes, base: Arrays | None
    ) -> Mapping[str, Array]:
        """Return the model in a download; see `flwr_caesar.sync.device.receive`.

        `base`, like all arrays of a state's model, may be read-only.
        """
        if inspect_frame(frame).config.get("id") == LATTICE_MODEL:
            known = state.digest if state else None
            key = None if base is None else known
            return _downloads.get(
                frame, key, lambda: decode_model(frame, base, base_digest=known)
            )
        return decode_whole(frame, base)

    def before(
        self, received: Received, content: RecordDict
    ) -> tuple[DeviceState, RecordDict]:
        """Return the state to go on with, and what the app is to see.

        Parameters
        ----------
        received : Received
            With the model in it.
        content : RecordDict
            Of the message, with the model as a plain ArrayRecord. Not changed.
        """
        return received.state, content

    def after(self, state: DeviceState, trained: Arrays, sent: Arrays) -> DeviceState:
        """Return the state to save before the reply leaves.

        Parameters
        ----------
        state : DeviceState
            With the upload in it.
        trained : mapping of str to ndarray
            What the app returned.
        sent : mapping of str to ndarray
            What the server decodes.
        """
        return state

    def measure(self, codec: Codec, total: Arrays, sent: Arrays) -> Mapping[str, Any]:
        """Return what the server is to know of an upload; small, as `report`.

        Parameters
        ----------
        codec : Codec
            That encoded it.
        total : mapping of str to ndarray
            What was encoded: the update and what was left of earlier ones.
        sent : mapping of str to ndarray
            What the server decodes.
        """
        return {}

    def report(self, state: DeviceState) -> Mapping[str, Any]:
        """Return what the server is to know, JSON-serialisable and small."""
        return {}


def extras(state: DeviceState | None, prefix: str) -> dict[str, Array]:
    """Return what a method keeps under names that begin with a prefix, without it."""
    kept = state.extras if state else {}
    return {
        name.removeprefix(prefix): array
        for name, array in kept.items()
        if name.startswith(prefix)
    }
