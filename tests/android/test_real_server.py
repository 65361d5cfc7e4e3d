"""Devices on a JVM beside SuperNodes in one Caesar run, on a real SuperLink."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.runner.config import compose
from flwr_caesar.runner.run import run
from flwr_caesar.runner.superlink import CONNECTION, SuperLink
from flwr_caesar.tasks import load_partition

from .jvm import Jvm
from .kotlin_node import KotlinNode, write_examples

pytestmark = pytest.mark.servers


def specification(nodes: int, rounds: int) -> dict[str, Any]:
    return compose(
        [
            *("strategy=caesar", "model=mlp", "data.partition.kind=iid"),
            *("train.epochs=1", f"rounds={rounds}", f"connection={CONNECTION}"),
            *("federation=local", f"federation.num_supernodes={nodes}"),
        ]
    )


def write_partition(path: Path, spec: dict[str, Any], part: int, parts: int) -> Path:
    examples = load_partition(spec["data"], part, parts, spec["seed"])
    write_examples(path, examples.x, examples.y, spec["data"]["num_classes"])
    return path


def test_a_phone_and_a_supernode_train_together(
    jvm: Jvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specification(2, 2)
    examples = write_partition(tmp_path / "examples", spec, 1, 2)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with SuperLink(simulation=False) as link:
        monkeypatch.setenv("FLWR_HOME", str(link.home))
        link.start_supernode(0, 2)
        server = f"http://127.0.0.1:{link.port}"
        with KotlinNode(tmp_path / "phone", examples, server) as phone:
            summary = run(spec, tmp_path)
            assert summary is not None
            assert summary["dropped"] == 0, phone.log
    rounds = list(csv.DictReader((tmp_path / "rounds.csv").open()))
    assert float(rounds[-1]["accuracy"]) > 0.5
    devices = list(csv.DictReader((tmp_path / "devices.csv").open()))
    assert len({row["node_id"] for row in devices}) == 2, devices[0].keys()
