"""What a round costs a device in watts, heat and wear, from whatever sensors it has."""

from .meter import Meter
from .report import Telemetry, TelemetryError

__all__ = ["Meter", "Telemetry", "TelemetryError"]
