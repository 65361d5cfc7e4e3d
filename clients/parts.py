"""Which device parts there are, by the names that plans give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr_caesar.codec import CodecError

from .bound_check import BoundCheck
from .fedcomloc_part import ControlVariates
from .part import DevicePart
from .recovery import Recovery

_PARTS: dict[str, type[DevicePart]] = {
    "": DevicePart,
    "bound_check": BoundCheck,
    "recovery": Recovery,
    "control_variates": ControlVariates,
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
