"""The baselines run, compare what they say, and have the form of Flower's."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flwr_caesar.tasks import mnist5k

from .apps import ROOT, check_bundle, project, require_packages, run

FOLDER = ROOT / "baselines"
BASELINES = ("caesar", "fedcomloc")
# What Flower's own check of a baseline's form asks for.
FILES = (
    "client_app.py",
    "dataset.py",
    "model.py",
    "server_app.py",
    "strategy.py",
    "utils.py",
)
SECTIONS = (
    "## About this baseline",
    "## Experimental Setup",
    "## Environment Setup",
    "## Running the Experiments",
)
FIELDS = (
    "Paper",
    "Authors",
    "Abstract",
    "What’s implemented",
    "Datasets",
    "Hardware Setup",
    "Contributors",
    "Task",
    "Model",
    "Dataset",
    "Training Hyperparameters",
)
# A baseline's strategy and more, and the largest part of plain traffic that two rounds
# may cost.
RUNS: list[tuple[str, dict[str, Any], float]] = [
    ("caesar", {"strategy": "fedavg"}, 1.01),
    ("caesar", {"strategy": "caesar"}, 0.9),
    ("fedcomloc", {"strategy": "fedcomloc", "density": 0.1}, 0.7),
]
# Of all devices as fast ones, without training for long.
SHORT = {
    "caesar": {"local-steps": 2, "simulated-devices": 10},
    "fedcomloc": {"probability": 0.5},
}


def test_every_baseline_is_known() -> None:
    assert sorted(p.parent.name for p in FOLDER.glob("*/pyproject.toml")) == list(
        BASELINES
    )


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_flowers_form(name: str) -> None:
    folder = FOLDER / name
    check_bundle(folder)
    assert {p.name for p in (folder / name).glob("*.py")} == {"__init__.py", *FILES}
    readme = (folder / "README.md").read_text(encoding="utf-8")
    head = readme.split("---\n")[1]
    told = yaml.safe_load(head)
    assert list(told) == ["title", "url", "labels", "dataset"]
    assert 4 <= len(told["labels"]) <= 10
    assert '"' not in head
    assert re.findall(r"^## .*$", readme, re.M) == list(SECTIONS)
    assert re.findall(r"^\*\*(.+?):\*\*", readme, re.M) == list(FIELDS)
    title = re.search(r"^# (.*)$", readme, re.M)
    assert title is not None
    assert title[1] == project(folder)["project"]["description"]
    assert told["title"] == title[1].replace(": ", " - ")
    assert "TODO" not in readme
    for key in project(folder)["tool"]["flwr"]["app"]["config"]:
        assert f"`{key}`" in readme, key


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    RUNS,
    ids=[f"{name}-{settings['strategy']}" for name, settings, _ in RUNS],
)
def test_a_baseline_runs(
    name: str,
    settings: dict[str, Any],
    part: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = FOLDER / name
    require_packages(folder)
    train, _ = mnist5k.load_split(1000)
    np.savez(tmp_path / "own.npz", x=train.x[:50], y=train.y[:50])
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    results = tmp_path / "results"
    given = {
        **{"num-server-rounds": 2, "fraction-train": 0.3, "results": str(results)},
        **SHORT[name],
        **settings,
    }
    strategy, summary = run(folder, given, tmp_path / "own.npz", tmp_path, monkeypatch)
    assert not [why for r in strategy.history for why in r.dropped.values()]
    assert summary["rounds"] == 2
    sent = summary["bytes_up"] + summary["bytes_down"]
    assert 0 < sent <= part * summary["raw_bytes"]
    (kept,) = import_module(f"{name}.utils").read(results, target=0.01)
    assert kept.name.partition(" ")[0] == settings["strategy"]
    assert kept.target_round == 0
    assert kept.settings == (f"strategy={kept.name}",)


@pytest.mark.parametrize("name", BASELINES)
def test_an_unknown_strategy_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.serverapp.strategy import FedAvg

    monkeypatch.setattr(sys, "path", [str(FOLDER / name), *sys.path])
    module = import_module(f"{name}.strategy")
    with pytest.raises(ValueError, match=r"one of .*fedavg.*, not 'none'"):
        module.build_strategy("none", FedAvg(), local_steps=1, max_batch=1)
