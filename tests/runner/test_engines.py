"""One sweep over all engines: they do the same, and nothing around them disturbs it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from .whole_runs import MARKS, PATIENCE, left_running, run_to_its_end

pytestmark = [*MARKS, pytest.mark.flower]

ENGINES = ("inline", "small", "local")  # none, Flower's simulation, SuperNodes
SETTINGS = [
    *("strategy=topk", "federation.num_supernodes=2", "data.partition.kind=iid"),
    *("federation.fraction_train=1.0", "rounds=2", "train.lr=0.05", "train.steps=20"),
]


def test_a_sweep_over_the_engines_ends_with_a_table_of_equals(tmp_path: Path) -> None:
    """In a folder with packages of our names, and with proxies that lead nowhere."""
    for name in ("flwr_caesar", "strategies", "clients", "conf", "flwr", "caesar_app"):
        (tmp_path / name).mkdir()
        text = f"raise ImportError('the wrong {name}')\n"
        (tmp_path / name / "__init__.py").write_text(text, encoding="utf-8")
    names = ("http_proxy", "https_proxy", "all_proxy")
    proxies = dict.fromkeys(names, "http://127.0.0.1:9")
    proxies |= {name.upper(): proxy for name, proxy in proxies.items()}
    sweep = ["-m", f"federation={','.join(ENGINES)}", *SETTINGS]
    printed = run_to_its_end(
        tmp_path, *sweep, environment=proxies, patience=len(ENGINES) * PATIENCE
    )
    assert len(re.findall(r"^topk +round 2/2", printed, re.M)) == len(ENGINES)
    assert "starting Flower and Ray, about 20 s" in printed
    (table,) = tmp_path.glob("runs/*/*-sweep/comparison.md")
    assert table.read_text("utf-8").strip() in printed
    assert str(table) in printed

    folders = sorted(table.parent.glob("*-*"))
    assert len(folders) == len(ENGINES)
    sent = []
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        with (folder / "devices.csv").open(encoding="utf-8", newline="") as file:
            devices = list(csv.DictReader(file))
        assert len(devices) == 4
        assert summary["bytes_up"] == sum(int(d["bytes_up"]) for d in devices)
        assert summary["bytes_up"] * 8 < summary["bytes_down"]
        for name in ("config.yaml", "rounds.csv", "model.safetensors", "flower.log"):
            assert (folder / name).stat().st_size > 0
        assert summary["rounds"] == 2
        assert summary["dropped"] == 0
        assert summary["accuracy"] > 0.2
        sent.append((summary["bytes_up"], summary["bytes_down"]))
    # An engine changes no message, but for rounding: replies come in another order.
    for found in sent:
        assert found == pytest.approx(sent[0], rel=0.01)

    assert left_running(tmp_path) == set()
    assert not (tmp_path / ".flwr").exists()
