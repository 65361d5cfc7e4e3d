from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord

from flwr_caesar.deploy.board import Board, power_mode, read_board
from flwr_caesar.deploy.telemetry import Meter, Telemetry, TelemetryError
from flwr_caesar.deploy.telemetry.jtop import parse_stats
from flwr_caesar.deploy.telemetry.sample import Sample
from flwr_caesar.deploy.telemetry.source import open_source
from flwr_caesar.deploy.telemetry.sysfs import read_rails, read_sysfs
from flwr_caesar.deploy.telemetry.tegrastats import parse_line
from flwr_caesar.deploy.telemetry.textfile import to_prometheus, write_prometheus
from flwr_caesar.deploy.telemetry.totals import Totals

from . import boards

FULL = Telemetry(
    seconds=12.5,
    source="sysfs",
    power_mode="MAXN",
    watts_mean=7.5,
    watts_max=9.25,
    joules=93.75,
    celsius_max=61.5,
    over_current=2,
    gpu_load=37.0,
    bytes_written=44_000_000,
    steps_fraction=0.5,
    policy="fewer steps: 78 °C, close to the limit of 85 °C",
)


def test_orin_tells_its_input_power_and_not_the_sum_of_its_rails(
    tmp_path: Path,
) -> None:
    assert read_sysfs(boards.orin(tmp_path)) == Sample(
        watts=pytest.approx(6.8544),
        celsius=52.687,
        gpu_load=37.0,
        over_current=4,
        power_mode="15W",
    )


def test_xavier_tells_the_sum_of_its_rails_and_passes_over_its_power_chip(
    tmp_path: Path,
) -> None:
    root = boards.xavier(tmp_path)
    assert set(read_rails(root)) == {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}
    assert read_sysfs(root) == Sample(
        watts=pytest.approx(19.0 * 0.267),
        celsius=39.5,
        gpu_load=4.0,
        over_current=None,
        power_mode="3",  # without nvpmodel.conf the number is all there is
    )


def test_a_bare_machine_tells_its_temperature_only(tmp_path: Path) -> None:
    assert read_sysfs(boards.x86(tmp_path)) == Sample(celsius=47.0)


def test_an_empty_file_system_tells_nothing(tmp_path: Path) -> None:
    assert read_sysfs(tmp_path) == Sample()
    assert read_board(tmp_path) == Board()


def test_a_board_on_an_ina238_tells_its_carriers_input(tmp_path: Path) -> None:
    boards.monitor(tmp_path, "hwmon1", VDD_GPU=(12000, 1000))
    boards.put(tmp_path, "sys/class/hwmon/hwmon5/name", "ina238\n")
    boards.put(tmp_path, "sys/class/hwmon/hwmon5/power1_input", "31500000\n")
    assert read_sysfs(tmp_path).watts == 31.5


def test_sensors_that_say_nonsense_are_passed_over(tmp_path: Path) -> None:
    root = boards.orin(tmp_path)
    boards.put(root, "sys/class/hwmon/hwmon1/in1_input", "lots\n")
    boards.zone(root, 1, "gpu-thermal", "")
    sample = read_sysfs(root)
    assert sample.watts == pytest.approx(5.032 * 0.382)
    assert sample.celsius == 51.312


def test_boards_are_told_apart(tmp_path: Path) -> None:
    orin = read_board(boards.orin(tmp_path / "orin"))
    assert (orin.chip, orin.l4t, orin.jetpack) == ("tegra234", "36.4.3", "6.2")
    assert orin.capability == "sm_87"
    xavier = read_board(boards.xavier(tmp_path / "xavier"))
    assert (xavier.l4t, xavier.jetpack, xavier.capability) == ("35.4.1", "", "sm_72")
    bare = read_board(boards.x86(tmp_path / "x86"))
    assert not bare.is_jetson
    assert power_mode(tmp_path / "x86") == ""


def test_tegrastats_of_orin_and_xavier() -> None:
    assert parse_line(boards.TEGRASTATS_ORIN) == Sample(
        watts=6.853, celsius=52.687, gpu_load=37.0
    )
    assert parse_line(boards.TEGRASTATS_XAVIER) == Sample(
        watts=pytest.approx(0.621 + 0.777 + 1.243 + 0.310 + 2.148),
        celsius=41.75,
        gpu_load=4.0,
    )
    # Thor tells no load.
    assert parse_line("GR3D_FREQ @[1575,1575,1575]").gpu_load is None
    assert parse_line("") == Sample()


def test_jtops_numbers_are_in_milliwatts_degrees_and_percent() -> None:
    stats = {
        "CPU1": "OFF",
        "GPU": 37.5,
        "Temp cpu": 51.25,
        "Temp cv0": -256,
        "Power VDD_SOC": 1602,
        "Power TOT": 6853,
        "nvp model": "15W",
    }
    assert parse_stats(stats) == Sample(
        watts=6.853, celsius=51.25, gpu_load=37.5, power_mode="15W"
    )
    assert parse_stats({"Power TOT": "OFF", "GPU": None}) == Sample()


def test_the_best_source_is_taken_and_a_broken_one_passed_over(tmp_path: Path) -> None:
    root = boards.x86(tmp_path)
    assert open_source(root)[0] == "sysfs"
    # A socket of a service whose client is not installed here.
    boards.put(root, "run/jtop.sock", "")
    assert open_source(root)[0] == "sysfs"
    # Without power in sysfs, tegrastats; it prints lines until it is ended.
    script = root / "usr/bin/tegrastats"
    boards.put(
        root,
        "usr/bin/tegrastats",
        f"#!/bin/sh\necho '{boards.TEGRASTATS_ORIN}'\nexec sleep 100\n",
    )
    script.chmod(0o755)
    name, source = open_source(root)
    assert name == "tegrastats"
    while source.read().watts is None:
        pass
    assert source.read().watts == 6.853
    source.close()
    boards.orin(root)
    assert open_source(root)[0] == "sysfs"


def test_energy_is_power_over_time_whatever_the_steps() -> None:
    totals = Totals()
    for now, watts in ((0.0, 4.0), (1.0, 8.0), (5.0, 8.0), (5.5, 2.0)):
        totals.add(Sample(watts=watts), now)
    assert totals.joules == 6 + 32 + 2.5
    assert totals.watts_mean == pytest.approx(40.5 / 5.5)
    assert totals.watts_max == 8.0


def test_over_current_events_are_those_since_the_start() -> None:
    totals = Totals()
    for count in (7, 7, 9):
        totals.add(Sample(over_current=count), 0.0)
    assert totals.over_current == 2
    totals.add(Sample(over_current=1), 1.0)  # the board started anew
    assert totals.over_current == 1


def test_nothing_measured_is_none_and_not_zero() -> None:
    totals = Totals()
    totals.add(Sample(), 0.0)
    assert totals.watts_mean is totals.gpu_load is totals.over_current is None


def test_a_meter_measures_a_board_until_it_is_stopped(tmp_path: Path) -> None:
    root = boards.orin(tmp_path)
    boards.put(root, "proc/self/io", "rchar: 5\nwrite_bytes: 1000\n")
    meter = Meter(root)
    boards.zone(root, 0, "cpu-thermal", "77000")
    boards.put(root, "sys/class/hwmon/hwmon2/oc1_event_cnt", "5\n")
    boards.put(root, "proc/self/io", "rchar: 5\nwrite_bytes: 45000\n")
    measured = meter.stop(policy="fewer steps: warm")
    assert measured.source == "sysfs"
    assert measured.power_mode == "15W"
    assert measured.watts_mean == pytest.approx(6.8544)
    # Both are of a moment, in which a crowded machine may stop the meter itself.
    assert 0 < measured.joules <= 1.2 * 6.8544 * measured.seconds
    assert measured.celsius_max == 77.0
    assert measured.over_current == 2
    assert measured.gpu_load == 37.0
    assert measured.bytes_written == 44_000
    assert measured.policy == "fewer steps: warm"


def test_a_meter_without_sensors_measures_time(tmp_path: Path) -> None:
    measured = Meter(tmp_path).stop()
    assert measured == Telemetry(seconds=measured.seconds, source="sysfs")
    assert measured.seconds > 0


def test_telemetry_travels_in_a_flower_record_within_a_kilobyte() -> None:
    record = ConfigRecord(dict(FULL.to_mapping()))
    assert Telemetry.of(record) == FULL
    longest = Telemetry(
        **{
            name: "x" * 500 if isinstance(value, str) else type(value)((1 << 53) - 1)
            for name, value in FULL.to_row().items()
            if name != "steps_fraction"
        },
        steps_fraction=1 / 3,
    )
    told = longest.to_mapping()
    assert len(told) == 12
    assert sum(len(k) + len(str(v)) for k, v in told.items()) < 1000
    Telemetry.of(told)
    assert Telemetry.of(Telemetry().to_mapping()) == Telemetry()


@pytest.mark.parametrize(
    "told",
    [
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": -1.0},
        {"seconds": "12"},
        {"seconds": True},
        {"seconds": None},
        {"joules": 2.0**54},
        {"celsius-max": -101.0},
        {"steps-fraction": 1.5},
        {"over-current": 1.5},
        {"over-current": -1},
        {"bytes-written": 1 << 54},
        {"source": 3},
        {"source": "x" * 121},
        {"power-mode": "MAXN\n"},
        {"power-mode": b"MAXN"},
        {"policy": ["hot"]},
        {f"k{i}": 1 for i in range(33)},
    ],
)
def test_what_no_device_can_mean_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(TelemetryError):
        Telemetry.of(told)


def test_fields_of_later_versions_are_passed_over() -> None:
    assert Telemetry.of({"seconds": 2, "watts-of-fan": 1.5}) == Telemetry(seconds=2.0)


def test_prometheus_reads_what_was_measured(tmp_path: Path) -> None:
    text = to_prometheus(FULL, device='a"b', finished=1764150000.0)
    assert 'flwr_caesar_round_joules{device="a\\"b"} 93.75\n' in text
    assert 'flwr_caesar_power_mode{device="a\\"b",mode="MAXN"} 1\n' in text
    assert 'flwr_caesar_held_back{device="a\\"b"} 1\n' in text
    # Each metric is declared once, before its value.
    for line in text.splitlines():
        if not line.startswith("#"):
            name = line.partition("{")[0]
            assert text.count(f"# TYPE {name} gauge\n") == 1
            assert text.index(f"# TYPE {name} ") < text.index(line)
    assert "joules" not in to_prometheus(Telemetry(), device="x", finished=0.0)
    write_prometheus(tmp_path, FULL, device="x", finished=0.0)
    assert [file.name for file in tmp_path.iterdir()] == ["flwr_caesar.prom"]
