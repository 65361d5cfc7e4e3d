"""Reading a board's sensors where Linux shows them."""

from __future__ import annotations

from pathlib import Path

from flwr_caesar.deploy.board import entries, power_mode, read_number, read_text

from .sample import Sample, total_watts

_GPUS = ("gpu", "gv11b", "gp10b", "ga10b", "gb10b")
_RAILS = (1, 2, 3)  # the fourth of the chip is the sum of its shunts
# A part that is switched off reads as absolute zero, or not at all.
_COLDEST = -100.0
_SHUNTS = "sum of shunt"


def read_sysfs(root: Path = Path("/")) -> Sample:
    """Return what the sensors below a root say; what cannot be read is left out."""
    return Sample(
        watts=total_watts(read_rails(root)),
        celsius=max(read_temperatures(root).values(), default=None),
        gpu_load=_gpu_load(root),
        over_current=_over_current(root),
        power_mode=power_mode(root),
    )


def read_rails(root: Path) -> dict[str, float]:
    """Return watts by the name of the rail, of the monitors INA3221 and INA238."""
    rails: dict[str, float] = {}
    for monitor in entries(root / "sys/class/hwmon"):
        kind = read_text(monitor / "name")
        if kind == "ina238":
            microwatts = read_number(monitor / "power1_input")
            if microwatts is not None:
                rails["VIN"] = microwatts / 1e6
        if kind != "ina3221":
            continue
        for number in _RAILS:
            label = read_text(monitor / f"in{number}_label")
            millivolts = read_number(monitor / f"in{number}_input")
            milliamperes = read_number(monitor / f"curr{number}_input")
            if not label or label == "NC" or _SHUNTS in label:
                continue
            if millivolts is not None and milliamperes is not None:
                rails[label] = millivolts * milliamperes / 1e6
    return rails


def read_temperatures(root: Path) -> dict[str, float]:
    """Return degrees Celsius by the name of the thermal zone."""
    zones: dict[str, float] = {}
    for zone in entries(root / "sys/class/thermal", "thermal_zone*"):
        thousandths = read_number(zone / "temp")
        name = read_text(zone / "type") or zone.name
        # The power chip of older boards reports a constant 100.
        if thousandths is None or name.startswith("PMIC"):
            continue
        if thousandths / 1000 > _COLDEST:
            zones[name] = thousandths / 1000
    return zones


def _gpu_load(root: Path) -> float | None:
    for device in entries(root / "sys/class/devfreq"):
        if read_text(device / "device/of_node/name").lower() in _GPUS:
            load = read_number(device / "device/load")
            if load is not None:
                return load / 10
    return None


def _over_current(root: Path) -> int | None:
    counts = [
        int(count)
        for monitor in entries(root / "sys/class/hwmon")
        for file in entries(monitor, "oc*_event_cnt")
        if (count := read_number(file)) is not None and count >= 0
    ]
    return sum(counts) if counts else None
