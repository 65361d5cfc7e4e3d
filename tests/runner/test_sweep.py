"""Several runs through a real SuperLink, and what compares them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from .whole_runs import MARKS, SMALL, left_running, run_to_its_end

pytestmark = MARKS


def test_a_sweep_ends_with_a_table_and_nothing_running(tmp_path: Path) -> None:
    printed = run_to_its_end(tmp_path, "-m", "strategy=fedavg,topk", *SMALL)
    assert "round 2/2" in printed
    (table,) = tmp_path.glob("runs/*/*-sweep/comparison.md")
    assert table.read_text("utf-8").strip() in printed
    assert str(table) in printed

    summaries = {}
    for folder in table.parent.glob("*-*"):
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        summaries[summary["strategy"]] = summary
        with (folder / "devices.csv").open(encoding="utf-8", newline="") as file:
            devices = list(csv.DictReader(file))
        assert len(devices) == 4
        assert summary["bytes_up"] == sum(int(d["bytes_up"]) for d in devices)
        for name in ("config.yaml", "rounds.csv", "model.safetensors", "flower.log"):
            assert (folder / name).stat().st_size > 0
    assert summaries["topk"]["bytes_up"] * 8 < summaries["fedavg"]["bytes_up"]
    for summary in summaries.values():
        assert summary["rounds"] == 2
        assert summary["dropped"] == 0
        assert summary["accuracy"] > 0.2

    assert left_running(tmp_path) == set()
    assert not (tmp_path / ".flwr").exists()
