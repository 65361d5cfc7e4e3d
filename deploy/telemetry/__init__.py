"""What a round costs a device in watts, heat and wear, from whatever sensors it has."""

from flwr_caesar.telemetry import Telemetry, TelemetryError

from .meter import Meter

__all__ = ["Meter", "Telemetry", "TelemetryError"]
