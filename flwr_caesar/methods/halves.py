"""The devices' halves of methods by their names in plans.

A device pays for each import, and needs to know of no strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flwr_caesar.codec import CodecError

if TYPE_CHECKING:
    from flwr_caesar.clients.method import DeviceMethod

# Names in plans, which are part of the wire format.
DEVICE_HALVES = {
    "": "flwr_caesar.clients.method:DeviceMethod",
    "bound_check": "flwr_caesar.clients.bound_check:BoundCheck",
    "recovery": "flwr_caesar.clients.recovery:Recovery",
    "shared_prediction": "flwr_caesar.clients.shared_prediction:SharedPrediction",
    "control_variates": "flwr_caesar.clients.control_variates:ControlVariates",
}


def device_method(name: str, settings: Mapping[str, Any]) -> DeviceMethod:
    """Return the device's half that a plan names.

    Parameters
    ----------
    name : str
        From the plan; empty for devices that need nothing besides the codecs.
    settings : mapping
        Likewise, from whoever sent it.

    Raises
    ------
    CodecError
        If there is none of that name here, or it refuses its settings.
    """
    path = DEVICE_HALVES.get(name)
    if path is None:
        from .registry import get_method

        try:
            path = get_method(name).device
        except LookupError:
            path = ""
    if not path:
        raise CodecError(
            f"the server asks for {name!r:.40}, which this device does not have: "
            "install the same flwr-caesar on both sides"
        )
    half = load(path)
    method: DeviceMethod = half(half.settings_type.of(settings))
    return method


def load(path: str) -> Any:
    """Import and return what is named as ``"module:attribute"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
