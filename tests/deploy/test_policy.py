from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from flwr_caesar.deploy.device_watch import DeviceWatch
from flwr_caesar.deploy.link_meter import (
    LinkError,
    Used,
    default_interface,
    load_used,
    read_counter,
    save_used,
)
from flwr_caesar.deploy.metered import IDLE_BYTES_PER_SECOND, Metered, Window
from flwr_caesar.deploy.node_file import ENVIRONMENT, NodeFile
from flwr_caesar.deploy.policy import Decision, Kind, Limits, Readings, decide
from flwr_caesar.deploy.readings import read_battery, read_readings

from . import boards

NOON = datetime(2026, 11, 26, 12, 0)
LIMITS = Limits(temperature=80, battery=20)
NIGHT = Metered(windows=(Window.parse("22:00-06:00"),))
ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    "wwan0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"
)


@pytest.mark.parametrize(
    ("readings", "kind", "words"),
    [
        (Readings(), Kind.FULL, ""),
        (Readings(temperature=69.9), Kind.FULL, ""),
        (Readings(temperature=70), Kind.FEWER, "close to the limit of 80 °C"),
        (Readings(temperature=79.9), Kind.FEWER, "80 °C, close"),
        (Readings(temperature=80), Kind.DECLINED, "80 °C, the limit is 80 °C"),
        (Readings(battery=5), Kind.FULL, ""),
        (Readings(battery=36, on_mains=False), Kind.FULL, ""),
        (Readings(battery=35, on_mains=False), Kind.FEWER, "battery at 35 %"),
        (Readings(battery=20, on_mains=False), Kind.DECLINED, "battery at 20 %"),
        (
            Readings(temperature=75, battery=10, on_mains=False),
            Kind.DECLINED,
            "battery at 10 %",
        ),
    ],
)
def test_heat_and_battery_decide(readings: Readings, kind: Kind, words: str) -> None:
    decided = decide(readings, LIMITS, None, NOON)
    assert decided.kind is kind
    assert words in decided.reason
    assert bool(decided.reason) is (kind is not Kind.FULL)
    assert decided.steps == {Kind.FULL: 1.0, Kind.FEWER: 0.5, Kind.DECLINED: 0.0}[kind]


def test_a_metered_link_decides_by_hours_and_bytes() -> None:
    budget = Metered(bytes_a_day=5_000_000, bytes_a_month=50_000_000)
    assert decide(Readings(), LIMITS, budget, NOON) == Decision()
    day = decide(Readings(bytes_today=5_000_000), LIMITS, budget, NOON)
    assert day.reason == "the 5.0 MB of today are used"
    month = decide(Readings(bytes_this_month=50_000_001), LIMITS, budget, NOON)
    assert month.reason == "the 50.0 MB of this month are used"
    assert decide(Readings(), LIMITS, NIGHT, NOON).reason == (
        "outside its hours, back at 22:00"
    )
    assert decide(Readings(), LIMITS, NIGHT, NOON.replace(hour=23)) == Decision()


@pytest.mark.parametrize(
    ("hour", "minute", "is_open"),
    [(21, 59, False), (22, 0, True), (0, 0, True), (5, 59, True), (6, 0, False)],
)
def test_a_window_goes_past_midnight(hour: int, minute: int, is_open: bool) -> None:
    assert NIGHT.is_open(NOON.replace(hour=hour, minute=minute)) is is_open


def test_when_a_window_opens_next() -> None:
    two = Metered(windows=(Window.parse("22:00-06:00"), Window.parse("13:00-13:30")))
    assert two.opens(NOON) == NOON.replace(hour=13)
    assert two.opens(NOON.replace(hour=14)) == NOON.replace(hour=22)
    late = Metered(windows=(Window.parse("01:00-02:00"),))
    assert late.opens(NOON) == datetime(2026, 11, 27, 1)
    assert late.opens(NOON.replace(hour=1)) == NOON.replace(hour=1)


def test_idle_bytes_follow_the_hours_online() -> None:
    whole = Metered().idle_bytes_a_month
    assert whole == pytest.approx(1.4e9, rel=0.01)
    assert NIGHT.idle_bytes_a_month == pytest.approx(whole / 3)
    twice = replace(NIGHT, windows=(*NIGHT.windows, Window.parse("23:00-01:00")))
    assert twice.idle_bytes_a_month == NIGHT.idle_bytes_a_month
    assert IDLE_BYTES_PER_SECOND == 539


def test_an_interfaces_bytes_are_counted_over_boots_days_and_months(
    tmp_path: Path,
) -> None:
    used = load_used(tmp_path, 1000, NOON)
    assert (used.today, used.this_month) == (0, 0)
    save_used(tmp_path, used.after(1500, NOON))
    # Another process goes on; then a boot sets the counter back.
    used = load_used(tmp_path, 1700, NOON)
    assert (used.today, used.this_month) == (700, 700)
    used = used.after(300, NOON)
    assert used.today == 1000
    used = used.after(400, datetime(2026, 11, 27, 0, 1))
    assert (used.today, used.this_month) == (100, 1100)
    used = used.after(450, datetime(2026, 12, 1))
    assert (used.today, used.this_month) == (50, 50)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "{'counter': 1}", '{"counter": -1, "day": "", "month": ""}'],
)
def test_a_damaged_count_starts_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "link.json").write_text(text)
    assert load_used(tmp_path, 7, NOON) == Used(7, "2026-11-26", "2026-11")


def test_the_interface_is_that_of_the_default_route(tmp_path: Path) -> None:
    boards.put(tmp_path, "proc/net/route", ROUTES)
    assert default_interface(tmp_path) == "wwan0"
    _counter(tmp_path, 100, 23)
    assert read_counter("wwan0", tmp_path) == 123
    with pytest.raises(LinkError, match="wlan7"):
        read_counter("wlan7", tmp_path)
    boards.put(tmp_path, "proc/net/route", ROUTES.rsplit("wwan0", 1)[0])
    with pytest.raises(LinkError, match="no default route"):
        default_interface(tmp_path)


def test_readings_come_from_the_board_its_battery_and_its_link(tmp_path: Path) -> None:
    root = boards.orin(tmp_path / "root")
    boards.battery(root, percent=42, status="Discharging")
    boards.put(root, "proc/net/route", ROUTES)
    _counter(root, 100, 23)
    node = _node(tmp_path)
    save_used(tmp_path / "state", Used(23, "2026-11-26", "2026-11", 900, 9000))
    assert read_readings(node, NOON, root) == Readings(
        temperature=52.687,
        battery=42,
        on_mains=False,
        bytes_today=1000,
        bytes_this_month=9100,
    )


def test_a_battery_that_charges_is_on_mains_and_a_mouses_does_not_count(
    tmp_path: Path,
) -> None:
    assert read_battery(boards.x86(tmp_path)) == (None, True)
    boards.battery(tmp_path, percent=5, status="Charging")
    assert read_battery(tmp_path) == (5, True)
    boards.battery(tmp_path, percent=5, status="Discharging")
    assert read_battery(tmp_path) == (5, False)
    boards.put(tmp_path, "sys/class/power_supply/BAT0/scope", "Device\n")
    assert read_battery(tmp_path) == (None, True)


def test_a_hot_device_does_half_the_steps_and_says_so(tmp_path: Path) -> None:
    root = boards.orin(tmp_path / "root")
    boards.zone(root, 1, "gpu-thermal", "79000")
    node = replace(_node(tmp_path), metered=None)
    watch = DeviceWatch(node, root)
    assert watch.decision.kind is Kind.FEWER
    assert [watch.steps(n) for n in (0, 1, 5, 20)] == [0, 1, 2, 10]
    measured = watch.stop()
    assert measured is not None
    assert measured.policy.startswith("fewer steps: 79 °C")
    assert measured.steps_fraction == 0.5
    assert measured.source == "sysfs"
    metrics = (tmp_path / "state" / "flwr_caesar.prom").read_text()
    assert 'held_back{device="jetson-07"} 1' in metrics


def test_without_a_node_file_nothing_is_watched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    watch = DeviceWatch.start()
    assert watch.decision == Decision()
    assert watch.steps(20) == 20
    assert watch.stop() is None
    node = _node(tmp_path)
    node.save(tmp_path / "node.toml")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "node.toml"))
    assert DeviceWatch.start().stop() is not None


def _counter(root: Path, received: int, sent: int) -> None:
    statistics = "sys/class/net/wwan0/statistics"
    boards.put(root, f"{statistics}/rx_bytes", f"{received}\n")
    boards.put(root, f"{statistics}/tx_bytes", f"{sent}\n")


def _node(folder: Path) -> NodeFile:
    (folder / "state").mkdir()
    return NodeFile(
        address="fleet.example:8443",
        ca=folder / "ca.crt",
        name="jetson-07",
        key=folder / "device.key",
        partition_id=0,
        num_partitions=1,
        state_dir=folder / "state",
        metered=Metered(),
    )
