"""The run folder adds up."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flwr_caesar.records import DeviceRecord, RoundRecord
from flwr_caesar.runner import folder as folder_module
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.folder import RunFolder, configurations
from flwr_caesar.runner.lock import COMMAND, held
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.progress import Progress, Tail
from flwr_caesar.runner.run import run
from flwr_caesar.tasks.errors import ConfigError


def a_round(number: int) -> list[RoundRecord]:
    train = RoundRecord(
        number,
        "train",
        1.0,
        (
            DeviceRecord(1, bytes_down=100, bytes_up=10, raw_bytes_up=100),
            DeviceRecord(2, bytes_down=100, dropped="not finite"),
        ),
    )
    test = RoundRecord(number, "evaluate", 0.5, (DeviceRecord(1, bytes_down=100),))
    return [train, test]


def a_charged_round(number: int) -> RoundRecord:
    def device(node: int, seconds: float) -> DeviceRecord:
        return DeviceRecord(
            node, 100, bytes_up=10, seconds_round_trip=0.1, waiting=6.0 - seconds
        )

    devices = (device(1, 2.0), device(2, 6.0))
    return RoundRecord(number, "train", 1.0, devices, 6.0, seconds_server=0.25)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def a_run(path: Path, rounds: int = 3) -> dict[str, np.ndarray]:
    folder = RunFolder(path, compose([f"rounds={rounds}"]))
    folder.on_evaluation(0, accuracy=0.1, loss=2.3)
    for number in range(1, rounds + 1):
        for record in a_round(number):
            folder.on_record(record)
        folder.on_evaluation(number, accuracy=0.2 * number, loss=1.0)
    model = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(3)}
    folder.finish(model)
    return model


def test_summary_is_the_sum_of_the_rounds_and_of_the_devices(tmp_path: Path) -> None:
    a_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["strategy"] == "caesar"
    assert summary["rounds"] == 3
    assert summary["accuracy"] == 0.2 * 3
    assert summary["dropped"] == 3
    assert summary["seconds"] >= 0
    for key in ("bytes_up", "bytes_down"):
        assert summary[key] == sum(int(r[key]) for r in rows(tmp_path / "rounds.csv"))
        assert summary[key] == sum(int(r[key]) for r in rows(tmp_path / "devices.csv"))
    assert (summary["bytes_up"], summary["bytes_down"]) == (30, 900)


def test_virtual_time_and_the_target(tmp_path: Path) -> None:
    spec = compose(["profile=uniform", "target_accuracy=0.4", "rounds=3"])
    folder = RunFolder(tmp_path, spec)
    for number in range(4):
        if number:
            folder.on_record(a_charged_round(number))
        folder.on_evaluation(number, accuracy=0.2 * number, loss=1.0)
    summary = folder.finish({"w": np.zeros(1, np.float32)})
    times = [row["total_virtual_seconds"] for row in rows(tmp_path / "rounds.csv")]
    assert times == ["0.0", "6.0", "12.0", "18.0"]
    assert (summary["clock"], summary["virtual_seconds"]) == ("virtual", 18.0)
    assert (summary["waiting_mean"], summary["waiting_max"]) == (2.0, 4.0)
    assert summary["seconds_server"] == 0.75
    target = summary["target"]
    assert target.pop("seconds") >= 0
    assert target == {
        "accuracy": 0.4,
        "round": 2,
        "bytes_up": 40,
        "bytes_down": 400,
        "virtual_seconds": 12.0,
    }


def test_a_target_that_was_not_reached(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, compose(["target_accuracy=0.4"]))
    folder.on_evaluation(0, accuracy=0.1, loss=2.3)
    summary = folder.finish({"w": np.zeros(1, np.float32)})
    assert summary["target"] == {"accuracy": 0.4, "round": None}
    assert (summary["clock"], summary["virtual_seconds"]) == ("measured", None)


def test_rows_of_an_older_version_get_the_columns_of_this_one(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=1)
    path = tmp_path / "devices.csv"
    old = [{k: v for k, v in row.items() if k != "power_mode"} for row in rows(path)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(old[0]))
        writer.writeheader()
        writer.writerows(old)
    spec = {**compose(["rounds=3"]), "resume": str(tmp_path)}
    folder = RunFolder(tmp_path, spec)
    folder.on_evaluation(1, accuracy=0.2, loss=1.0)
    for record in a_round(2):
        folder.on_record(record)
    found = rows(path)
    assert [row["round"] for row in found] == ["1"] * 3 + ["2"] * 3
    assert {row["power_mode"] for row in found} == {""}
    assert {**found[0], **old[0]} == found[0]


def test_devices_keep_round_phase_and_reason(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=1)
    found = [
        (row["round"], row["phase"], row["node_id"], row["dropped"])
        for row in rows(tmp_path / "devices.csv")
    ]
    assert found == [
        ("1", "train", "1", ""),
        ("1", "train", "2", "not finite"),
        ("1", "evaluate", "1", ""),
    ]


def test_the_model_is_kept_exactly(tmp_path: Path) -> None:
    model = a_run(tmp_path)
    for name, array in load_file(tmp_path / "model.safetensors").items():
        np.testing.assert_array_equal(array, model[name])
        assert array.dtype == model[name].dtype


def test_the_configuration_composes_again(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    a_run(tmp_path)
    assert OmegaConf.load(tmp_path / "config.yaml") == compose(["rounds=3"])


def test_a_run_does_not_go_on_with_the_folder_of_another(tmp_path: Path) -> None:
    spec = compose([])
    RunFolder(tmp_path, spec)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="resume="):
        RunFolder(tmp_path, spec)
    with pytest.raises(ConfigError, match="another folder"):
        run(spec, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("killed_in", ["config-2.yaml", "rounds.csv", "devices.csv"])
def test_a_run_killed_while_it_writes_can_be_resumed(
    killed_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def tear(path: Path, text: str, **options: object) -> int:
        if path.name.removeprefix(".") == killed_in:
            write(path, text[: len(text) // 2], encoding="utf-8")
            raise Killed
        return write(path, text, **options)

    def resumed() -> RunFolder:
        folder = RunFolder(tmp_path, {**spec, "resume": str(tmp_path)})
        folder.on_evaluation(0, accuracy=0.1, loss=2.3)
        return folder

    def round_1(folder: RunFolder) -> None:
        for record in a_round(1):
            folder.on_record(record)
        folder.on_evaluation(1, accuracy=0.2, loss=1.0)

    write = Path.write_text
    spec = compose(["rounds=3"])
    RunFolder(tmp_path, spec).on_evaluation(0, accuracy=0.1, loss=2.3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", tear)
        with pytest.raises(Killed):
            round_1(resumed())
    folder = resumed()
    round_1(folder)
    assert [row["round"] for row in rows(tmp_path / "rounds.csv")] == ["0", "1"]
    assert [row["round"] for row in rows(tmp_path / "devices.csv")] == ["1"] * 3
    folder.finish({"w": np.zeros(3)})
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert (summary["bytes_up"], summary["bytes_down"]) == (10, 300)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_a_resumed_run_keeps_each_segments_configuration(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=2)
    first = (tmp_path / "config.yaml").read_bytes()
    for segment, rounds in ((2, 3), (3, 4)):
        spec = {**compose([f"rounds={rounds}"]), "resume": str(tmp_path)}
        folder = RunFolder(tmp_path, spec)
        folder.on_evaluation(rounds - 1, accuracy=0.4, loss=1.0)
        assert (tmp_path / "summary.json").exists() or segment > 2
        assert not (tmp_path / f"config-{segment}.yaml").exists()  # nothing trained yet
        for record in a_round(rounds):
            folder.on_record(record)
        folder.on_evaluation(rounds, accuracy=0.5, loss=1.0)
        assert not (tmp_path / "summary.json").exists()  # it was of the rounds before
        kept = (tmp_path / f"config-{segment}.yaml").read_text("utf-8")
        assert kept.startswith(f"# From round {rounds} on.\n")
        assert f"rounds: {rounds}\n" in kept
    assert (tmp_path / "config.yaml").read_bytes() == first
    names = ["config.yaml", "config-2.yaml", "config-3.yaml"]
    assert [file.name for file in configurations(tmp_path)] == names


def test_until_its_first_round_a_resumed_run_changes_nothing(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=2)
    before = contents(tmp_path)
    spec = {**compose(["rounds=3"]), "resume": str(tmp_path)}

    def fail() -> None:
        with RunFolder.open(tmp_path, spec) as folder:
            folder.on_evaluation(2, accuracy=0.4, loss=1.0)
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    after = contents(tmp_path)
    assert json.loads(after.pop("events.jsonl"))["reason"] == "OSError: no space"
    assert after.pop(".server.holder")
    assert after.pop(".server.lock") == b""
    before.pop("events.jsonl")
    assert after == before


def test_a_resumed_run_that_would_begin_anew_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=2)
    before = contents(tmp_path)
    folder = RunFolder(tmp_path, {**compose(["rounds=3"]), "resume": str(tmp_path)})
    with pytest.raises(RuntimeError, match="no checkpoint"):
        folder.on_evaluation(0, accuracy=0.1, loss=2.3)
    after = contents(tmp_path)
    assert after | {"events.jsonl": b""} == before | {"events.jsonl": b""}


def test_a_run_of_which_no_reply_counted_yet_begins_anew(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, compose(["rounds=3"]))
    first.on_evaluation(0, accuracy=0.1, loss=2.3)
    (record,) = (r for r in a_round(1) if r.phase == "train")
    dropped = [replace(d, dropped="needs a whole model") for d in record.devices]
    first.on_record(replace(record, devices=dropped))
    first.on_evaluation(1, accuracy=0.1, loss=2.3)
    assert rows(tmp_path / "rounds.csv")[-1]["round"] == "1"
    again = RunFolder(tmp_path, {**compose(["rounds=3"]), "resume": str(tmp_path)})
    again.on_evaluation(0, accuracy=0.1, loss=2.3)
    again.on_record(record)
    again.on_evaluation(1, accuracy=0.5, loss=1.0)
    found = rows(tmp_path / "rounds.csv")
    assert [(row["round"], row["accuracy"]) for row in found] == [
        ("0", "0.1"),
        ("1", "0.5"),
    ]


def test_a_second_server_is_kept_out_and_told_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_PATIENCE", 0.1)
    spec = compose([])
    with RunFolder.open(tmp_path, spec):
        before = contents(tmp_path)
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()} on .* since 20"),
            RunFolder.open(tmp_path, {**spec, "resume": str(tmp_path)}),
        ):
            pass
        assert contents(tmp_path) == before


HOLD = """
import sys, time
from pathlib import Path
from flwr_caesar.runner.lock import COMMAND, held
with held(Path(sys.argv[1]), COMMAND):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_command_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    )
    with first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"held\n"
            before = contents(tmp_path)
            with pytest.raises(ConfigError, match=f"process {first.pid} on"):
                run(compose([]), tmp_path)
            assert contents(tmp_path) == before
        finally:
            first.kill()
    with held(tmp_path, COMMAND):
        assert contents(tmp_path) != before


def test_a_summary_of_no_new_rounds_has_numbers(tmp_path: Path) -> None:
    a_run(tmp_path, rounds=2)
    folder = RunFolder(tmp_path, {**compose(["rounds=2"]), "resume": str(tmp_path)})
    folder.on_evaluation(2, accuracy=0.4, loss=1.0)
    summary = folder.finish({"w": np.zeros(1, np.float32)})
    assert summary["rounds"] == 2
    assert (summary["accuracy"], summary["loss"]) == (0.4, 1.0)


def test_a_run_without_summary_failed(tmp_path: Path) -> None:
    RunFolder(tmp_path, compose([])).on_evaluation(0, accuracy=0.1, loss=2.3)
    assert Outcome.read(tmp_path).summary is None
    a_run(tmp_path / "whole")
    assert len(Outcome.read(tmp_path / "whole").rounds) == 4


def test_progress_is_a_line_for_each_round(tmp_path: Path) -> None:
    a_run(tmp_path)
    lines: list[str] = []
    progress = Progress("topk", 3, lines.append)
    for event in Tail(tmp_path / "events.jsonl").events():
        progress.take(event, 0.0)
    assert len(lines) == 4
    assert "round 2/3" in lines[2]
    assert "40.0 %" in lines[2]
    assert "1 dropped" in lines[2]
    assert not progress.failure


def test_a_line_that_is_not_whole_waits(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    assert list(tail.events()) == []
    file.write_text('{"event": "a"}\n{"event"', encoding="utf-8")
    assert list(tail.events()) == [{"event": "a"}]
    with file.open("a", encoding="utf-8") as more:
        more.write(': "b"}\n')
    assert list(tail.events()) == [{"event": "b"}]


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    file.write_text('{"event": "a"}\n{"ev{"event": "b"}\n{"event": "c"}\n', "utf-8")
    assert [event["event"] for event in tail.events()] == ["a", "c"]
    file.write_text('{"event": "d"}\n', "utf-8")  # begun anew
    assert [event["event"] for event in tail.events()] == ["d"]


def test_silence_is_broken_now_and_then() -> None:
    lines: list[str] = []
    progress = Progress("topk", 3, lines.append)
    for second in range(1, 200):
        progress.quiet(float(second), lambda: "Waiting for nodes to connect")
    assert len(lines) == 3
    assert all("Waiting for nodes" in line for line in lines)
