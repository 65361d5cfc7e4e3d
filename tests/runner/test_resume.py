"""Whole runs that go on where they stopped, in the folder that they have."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest

from ..methods.distribution import install
from .whole_runs import INLINE, MARKS, PATIENCE, run_to_its_end, start, wait_for

pytestmark = MARKS

CHECKOUT = Path(__file__).parents[2]


def test_a_run_of_a_method_from_outside_is_resumed_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package of docs/extending.md, on a real SuperLink and a real SuperNode."""
    site, folder = install(tmp_path / "site", monkeypatch), tmp_path / "run"
    first = ["strategy=adaptive_topk", "federation=local", "model=mlp", "rounds=1"]
    first += ["federation.num_supernodes=1", "train.steps=1", f"hydra.run.dir={folder}"]
    for arguments in (first, [f"resume={folder}", "rounds=2"]):
        run_to_its_end(tmp_path, *arguments, environment={"PYTHONPATH": str(site)})
    with (folder / "rounds.csv").open(encoding="utf-8", newline="") as file:
        rounds = list(csv.DictReader(file))
    assert [row["round"] for row in rounds] == ["0", "1", "2"]
    sent = [int(row["bytes_up"]) for row in rounds]
    assert sent[0] == 0 < min(sent[1:])
    # What it learned in the first round sets the density of the second.
    assert abs(sent[2] / sent[1] - 1) > 0.1
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["bytes_up"] == sum(sent) == int(rounds[-1]["total_bytes_up"])
    assert float(rounds[1]["seconds"]) < float(rounds[2]["seconds"])


@pytest.mark.parametrize("strategy", ["fedavg", "caesar"])
def test_a_run_of_any_strategy_is_resumed(strategy: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = [f"strategy={strategy}", "rounds=2", f"hydra.run.dir={folder}"]
    run_to_its_end(tmp_path, *INLINE, *first)
    before = list(csv.DictReader((folder / "rounds.csv").open(encoding="utf-8")))
    config = (folder / "config.yaml").read_bytes()
    run_to_its_end(tmp_path, f"resume={folder}", "rounds=4")
    rows = list(csv.DictReader((folder / "rounds.csv").open(encoding="utf-8")))
    assert rows[:3] == before
    assert [row["round"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert (folder / "config.yaml").read_bytes() == config
    assert "# From round 3 on.\n" in (folder / "config-2.yaml").read_text("utf-8")
    assert json.loads((folder / "summary.json").read_text("utf-8"))["rounds"] == 4


def test_two_commands_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = [*INLINE, "rounds=1000", f"hydra.run.dir={folder}"]
    # Inside a checkout, whose packages are not those that are installed.
    with start(tmp_path, *settings, place=CHECKOUT) as first:
        rounds = folder / "rounds.csv"
        wait_for(lambda: rounds.exists() and "\n1," in rounds.read_text(), PATIENCE)
        for arguments in (settings, [f"resume={folder}", "rounds=2000"]):
            with start(tmp_path, *arguments) as second:
                printed, _ = second.communicate(timeout=PATIENCE)
            assert second.returncode == 2, printed
            assert len(printed.splitlines()) <= 2  # the first says where it would go
        assert f"in use by process {first.pid} on " in printed
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=PATIENCE)
    assert not (folder / "config-2.yaml").exists()
