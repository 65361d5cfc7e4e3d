"""What a method does on the device around the app's own training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import RecordDict

from flwr_caesar.codec import Codec, CodecError, Layout, get_codec, inspect_frame
from flwr_caesar.codec.caesar_model import with_stale
from flwr_caesar.codec.lattice_model import ID as LATTICE_MODEL
from flwr_caesar.codec.lattice_model import decode_model
from flwr_caesar.codec.layout import Array, Arrays
from flwr_caesar.sync.device import Received, decode_whole
from flwr_caesar.sync.state import DeviceState

_TRAINED = "trained/"


@dataclass(frozen=True)
class DevicePart:
    """The device's half of a method; this one adds nothing.

    What a part keeps between messages it puts into `DeviceState.extras`, which is
    saved together with the residual.

    Parameters
    ----------
    settings : mapping
        From the server's plan; check before use.
    """

    settings: Mapping[str, Any]

    def decode(
        self, state: DeviceState | None, frame: bytes, base: Arrays | None
    ) -> Mapping[str, Array]:
        """Return the model in a download; see `flwr_caesar.sync.device.receive`."""
        if inspect_frame(frame).config.get("id") == LATTICE_MODEL:
            known = state.digest if state else None
            return decode_model(frame, base, base_digest=known)
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


@dataclass(frozen=True)
class Recovery(DevicePart):
    """Recover a model that Caesar compressed, from the device's own last model.

    The model that the device trained last is kept; the next download is decoded with
    it as `flwr_caesar.codec.caesar_model.CaesarModel` says.
    """

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
        return codec.decode(frame, with_stale(Layout.of(base), own))[0]

    def after(self, state: DeviceState, trained: Arrays, sent: Arrays) -> DeviceState:
        """Keep the trained model."""
        return replace(
            state, extras={_TRAINED + name: array for name, array in trained.items()}
        )


def extras(state: DeviceState | None, prefix: str) -> dict[str, Array]:
    """Return what a part keeps under names that begin with a prefix, without it."""
    kept = state.extras if state else {}
    return {
        name.removeprefix(prefix): array
        for name, array in kept.items()
        if name.startswith(prefix)
    }


def _control_variates(settings: Mapping[str, Any]) -> DevicePart:
    from .fedcomloc_part import ControlVariates

    return ControlVariates(settings)


def _bound_check(settings: Mapping[str, Any]) -> DevicePart:
    from .bound_check import BoundCheck

    return BoundCheck(settings)


_PARTS: dict[str, Callable[[Mapping[str, Any]], DevicePart]] = {
    "": DevicePart,
    "bound_check": _bound_check,
    "recovery": Recovery,
    "control_variates": _control_variates,
}


def get_part(name: str, settings: Mapping[str, Any]) -> DevicePart:
    """Return the part that a plan names.

    Raises
    ------
    CodecError
        If there is none of that name here, or it refuses its settings.
    """
    if name not in _PARTS:
        raise CodecError(
            f"the server asks for {name!r:.40}, which this device does not have: "
            "install the same flwr-caesar on both sides"
        )
    return _PARTS[name](settings)
