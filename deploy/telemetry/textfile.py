"""Telemetry as a text file for Prometheus, which node_exporter picks up."""

from __future__ import annotations

from pathlib import Path

from flwr_caesar.deploy.whole_file import write_whole
from flwr_caesar.telemetry import Telemetry

FILE_NAME = "flwr_caesar.prom"

# Field: name and help of its metric. All tell of the last message.
_METRICS = {
    "seconds": ("seconds", "Seconds that the last message took on this device"),
    "watts_mean": ("watts_mean", "Mean power of the board"),
    "watts_max": ("watts_max", "Highest power of the board"),
    "joules": ("joules", "Energy of the board"),
    "celsius_max": ("celsius_max", "Highest temperature of any sensor"),
    "over_current": ("over_current_events", "Times throttled for a high current"),
    "gpu_load": ("gpu_load_percent", "Mean load of the GPU"),
    "bytes_written": ("bytes_written", "Bytes written to the disk"),
}


def to_prometheus(telemetry: Telemetry, *, device: str, finished: float) -> str:
    """Return the metrics of a message in Prometheus's text format.

    Parameters
    ----------
    telemetry : Telemetry
        What was measured.
    device : str
        Name of the device.
    finished : float
        When the message was answered, in seconds since 1970.
    """
    labels = f'{{device="{_escaped(device)}"}}'
    lines = []
    for field, (name, text) in _METRICS.items():
        value = getattr(telemetry, field)
        if value is not None:
            lines += _metric(f"round_{name}", text, labels, value)
    lines += _metric(
        "last_message_seconds", "When it was answered, since 1970", labels, finished
    )
    mode = _escaped(telemetry.power_mode)
    if mode:
        named = f'{labels[:-1]},mode="{mode}"}}'
        lines += _metric("power_mode", "1 for the board's power mode", named, 1)
    held = bool(telemetry.policy)
    lines += _metric("held_back", "1 if it did less than asked", labels, int(held))
    return "\n".join(lines) + "\n"


def write_prometheus(
    folder: Path, telemetry: Telemetry, *, device: str, finished: float
) -> None:
    """Write the metrics where node_exporter's textfile collector finds them.

    Parameters
    ----------
    folder : Path
        Its ``--collector.textfile.directory``, or any other.
    telemetry, device, finished
        See `to_prometheus`.
    """
    text = to_prometheus(telemetry, device=device, finished=finished)
    write_whole(folder / FILE_NAME, text)


def _metric(name: str, text: str, labels: str, value: float) -> list[str]:
    full = f"flwr_caesar_{name}"
    return [
        f"# HELP {full} {text}",
        f"# TYPE {full} gauge",
        f"{full}{labels} {value!r}",
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
