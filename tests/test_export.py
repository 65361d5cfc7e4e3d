"""Sinks of `on_record`: what they tell is what was recorded, and they end no run."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from flwr.app import MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.export.sink import Sink
from flwr_caesar.strategies import TopK

from .strategies.apps import initial_model, numpy_app
from .strategies.local_grid import LocalGrid

DASHBOARD = Path(__file__).parents[1] / "docs" / "grafana.json"


class Kept(Sink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, dict[str, float]]] = []

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        self.told.append((server_round, dict(figures)))


class Broken(Sink):
    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        raise OSError("disk full")


def trained(*sinks: Sink) -> TopK:
    random.seed(0)
    strategy = TopK(FedAvg(fraction_evaluate=0.0), on_record=sinks)
    strategy.start(
        LocalGrid(numpy_app(mods=[compression_mod]), 2),
        initial_model(),
        num_rounds=2,
        evaluate_fn=lambda done, _: MetricRecord({"accuracy": 0.1 * done, "loss": 2.0}),
    )
    return strategy


def test_every_sink_is_told_and_a_broken_one_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, plain = Kept(), []
    strategy = trained(Broken(), kept, plain.append)  # type: ignore[arg-type]
    assert plain == strategy.history
    phases = [figures for _, figures in kept.told if "train/bytes_up" in figures]
    assert [p["train/bytes_up"] for p in phases] == [r.bytes_up for r in plain]
    assert phases[-1]["total/bytes_up"] == sum(r.bytes_up for r in plain)
    assert phases[-1]["total/times_fewer"] > 1
    tests = [(n, f["test/accuracy"]) for n, f in kept.told if "test/accuracy" in f]
    assert tests == [(0, 0.0), (1, 0.1), (2, 0.2)]
    # Other tests may have left a handler, by which each record is kept twice.
    said = {id(record): record.getMessage() for record in caplog.records}
    broken = [text for text in said.values() if "Broken" in text]
    assert broken == ["flwr-caesar: Broken cannot write: disk full"]


def test_prometheus_serves_what_its_dashboard_shows() -> None:
    client = pytest.importorskip("prometheus_client")
    from flwr_caesar.export.prometheus import Prometheus

    sink = Prometheus(port=None)
    strategy = trained(sink)
    text = client.generate_latest(sink.registry).decode()
    up = sum(record.bytes_up for record in strategy.history)
    line = 'flwr_caesar_bytes_total{direction="up",phase="train"} '
    assert float(text.partition(line)[2].split()[0]) == up
    assert "flwr_caesar_accuracy 0.2" in text
    assert "flwr_caesar_round 2.0" in text
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"flwr_caesar_\w+", target["expr"])
    }
    assert len(asked) >= 9
    assert all(f"\n{name}{{" in text or f"\n{name} " in text for name in asked)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from flwr_caesar.export.tensorboard import TensorBoard

    strategy = trained(TensorBoard(tmp_path))
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    up = [(event.step, event.value) for event in read.Scalars("train/bytes_up")]
    assert up == [(r.server_round, float(r.bytes_up)) for r in strategy.history]
    assert [e.step for e in read.Scalars("test/accuracy")] == [0, 1, 2]
