"""Run folders to look at, made by what makes real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flwr_caesar.records import DeviceRecord, PhaseProgress, RoundRecord
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.folder import RunFolder
from flwr_caesar.telemetry import Telemetry

HOSTILE = '<img src=x onerror="document.title=1"> =1+1 "quoted", \u202e'


def device(number: int, *, refused: str = "") -> DeviceRecord:
    record = DeviceRecord(
        number,
        bytes_down=2_000,
        bytes_up=1_000,
        raw_bytes_up=0 if refused else 32_000,
        raw_bytes_down=32_000,
        seconds_train=2.0,
        seconds_round_trip=5.0,
        batch_size=16,
        local_steps=10,
        device_class="tx2" if number % 2 else "phone_high",
        dropped=refused,
    )
    told = Telemetry(source="sysfs", watts_mean=7.5, celsius_max=61.0)
    return replace(record, telemetry=told) if number == 1 else record


def write_run(
    path: Path, *, rounds: int = 3, of: int = 5, strategy: str = "caesar"
) -> RunFolder:
    """Write a run of three devices; the third one's replies are refused."""
    folder = RunFolder(path, compose([f"strategy={strategy}", f"rounds={of}"]))
    folder.on_evaluation(0, accuracy=0.1, loss=2.3)
    for number in range(1, rounds + 1):
        add_round(folder, number)
    return folder


def add_round(folder: RunFolder, number: int) -> None:
    devices = (device(1), device(2), device(3, refused=HOSTILE))
    folder.on_record(RoundRecord(number, "train", 5.0, devices, seconds_server=0.25))
    folder.on_progress(PhaseProgress(number + 1, "train", 3, 1, {HOSTILE: 1}))
    folder.on_evaluation(number, accuracy=0.1 + 0.2 * number, loss=1.0)
