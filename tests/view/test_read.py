"""What a page is told of a run folder, whatever is in it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.runner.config import compose
from flwr_caesar.runner.folder import RunFolder
from flwr_caesar.view.read import read_run, stamp

from .runs import HOSTILE, add_round, write_run


def test_a_run_in_progress(tmp_path: Path) -> None:
    write_run(tmp_path)
    told = read_run(tmp_path)
    assert (told["strategy"], told["planned"], told["state"]) == (
        "caesar",
        5,
        "running",
    )
    assert [row["round"] for row in told["rounds"]] == [0, 1, 2, 3]
    last = told["rounds"][-1]
    assert last["accuracy"] == pytest.approx(0.7)
    assert last["total_bytes_up"] == 9_000
    assert last["total_raw_bytes"] == 3 * (2 * 32_000 + 3 * 32_000)
    assert told["now"]["round"] == 4
    assert told["now"]["answered"] == 1


def test_a_device_is_its_last_round(tmp_path: Path) -> None:
    write_run(tmp_path)
    first, second, third = sorted(
        read_run(tmp_path)["devices"], key=lambda device: device["node"]
    )
    assert first["round"] == 3
    assert first["model"] == 2
    assert first["age"] == 0
    # 1,000 bytes of a model of 8,000 parameters.
    assert first["rate"] == 1.0
    assert first["batch"] == 16
    # 3,000 bytes in the three seconds that it did not train.
    assert first["link"] == 1_000
    assert (first["watts"], first["celsius"]) == (7.5, 61.0)
    assert second["watts"] is None
    assert third["refusals"] == 3
    assert third["age"] is None
    assert third["reason"].startswith("<img src=x")


def test_a_finished_run_and_a_resumed_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    folder.finish({"w": np.zeros(1, np.float32)})
    told = read_run(tmp_path)
    assert told["state"] == "finished"
    assert told["events"][-1]["kind"] == "finished"
    spec = {**compose(["rounds=9"]), "resume": str(tmp_path)}
    resumed = RunFolder(tmp_path, spec)
    add_round(resumed, 4)
    told = read_run(tmp_path)
    assert told["state"] == "running"
    assert told["planned"] == 9
    assert [one["file"] for one in told["settings"]] == ["config.yaml", "config-2.yaml"]
    assert "From round 4 on" in told["events"][0]["text"]


def test_why_a_run_failed(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    folder.event("failed", reason="RuntimeError: " + HOSTILE)
    told = read_run(tmp_path)
    assert told["state"] == "failed"
    assert told["events"][-1]["kind"] == "failed"


def test_the_stamp_changes_with_the_files(tmp_path: Path) -> None:
    assert stamp(tmp_path) == "empty"
    folder = write_run(tmp_path)
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before == read_run(tmp_path)["stamp"]
    add_round(folder, 4)
    assert stamp(tmp_path) != before


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_are_read_as_far_as_they_go(seed: int, tmp_path: Path) -> None:
    write_run(tmp_path)
    draw = random.Random(seed)
    for path in sorted(tmp_path.iterdir()):
        if path.is_file() and draw.random() < 0.7:
            data = bytearray(path.read_bytes())
            for _ in range(draw.randrange(1, 40)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(data[: draw.randrange(1, len(data) + 1)])
    json.dumps(read_run(tmp_path), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rounds.csv", "round,accuracy\n1,nan\n2,inf\n-3,1\n1e400,1\nx,1\n5,0.5\n"),
        ("devices.csv", "round,node_id\n1," + "9" * 200_000 + "\n2,7\n"),
        ("devices.csv", 'round,node_id\n1,"no end\n'),
        ("events.jsonl", "[" * 100_000 + "\n" + '{"event": 3}\n{"event": "round"}\n'),
        ("summary.json", "[" * 100_000),
        ("summary.json", '{"accuracy": NaN, "versions": {"a": [1]}}'),
        ("config.yaml", "a: &a [*a]\n"),
        ("config.yaml", "strategy: [1]\nrounds: many\n"),
        ("config.yaml", "!!python/object/apply:os.system ['true']\n"),
        ("now.json", '{"round": 1, "refused": 3}'),
    ],
)
def test_hostile_files_are_values_that_a_page_can_show(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    told = read_run(tmp_path)
    json.dumps(told, allow_nan=False)
    if name == "rounds.csv":
        found = [(row["round"], row["accuracy"]) for row in told["rounds"]]
        assert found == [(1, None), (2, None), (5, 0.5)]


def test_an_empty_folder_is_a_run_that_starts(tmp_path: Path) -> None:
    assert read_run(tmp_path)["state"] == "starting"
