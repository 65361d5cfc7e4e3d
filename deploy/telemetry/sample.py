"""One reading of a board's sensors, and the total of its rails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Rails that measure the board's whole input, the best one first. Where there is none
# (Xavier, AGX Orin), the rails add up to the module's; so does jetson-stats count.
_INPUT_RAILS = ("VIN", "POM_5V_IN", "VDD_IN")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a board's sensors said at a moment; `None` for what it has none for.

    Parameters
    ----------
    watts : float, optional
        Of the whole board.
    celsius : float, optional
        Of the hottest sensor.
    gpu_load : float, optional
        Percent.
    over_current : int, optional
        Events since the board started.
    power_mode : str
        Its name; empty without one.
    """

    watts: float | None = None
    celsius: float | None = None
    gpu_load: float | None = None
    over_current: int | None = None
    power_mode: str = ""


Reader = Callable[[], Sample]


def total_watts(rails: Mapping[str, float]) -> float | None:
    """Return the power of the board from that of its rails, in the same unit."""
    if not rails:
        return None
    inputs = [rails[name] for name in _INPUT_RAILS if name in rails]
    return inputs[0] if inputs else sum(rails.values())
