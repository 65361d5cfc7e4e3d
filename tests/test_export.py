"""Sinks of `on_record`: what they tell is what was recorded, and they end no run."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.export.sink import Sink
from flwr_caesar.strategies import TopK

from .strategies.apps import initial_model, numpy_app
from .strategies.local_grid import LocalGrid

DASHBOARD = Path(__file__).parents[1] / "docs" / "exporting" / "grafana.json"


class Kept(Sink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, dict[str, float]]] = []
        self.ended: list[bool] = []

    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        self.told.append((server_round, dict(figures)))

    def end(self, *, failed: bool) -> None:
        self.ended.append(failed)


class Broken(Sink):
    def write(self, server_round: int, figures: Mapping[str, float]) -> None:
        raise OSError("disk full")

    def end(self, *, failed: bool) -> None:
        raise OSError("cannot be closed")


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


def installed(package: str, extra: str) -> Any:
    reason = f"{package} is not installed: the extra {extra!r} has it"
    return pytest.importorskip(package, reason=reason)


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


def test_a_sink_is_closed_once_and_told_of_a_failure() -> None:
    with Kept() as kept, Broken():
        pass
    kept.close(failed=True)
    assert kept.ended == [False]
    failing = Kept()
    with pytest.raises(ValueError, match="of the app"), failing:
        raise ValueError("of the app")
    assert failing.ended == [True]


def test_prometheus_serves_what_its_dashboard_shows() -> None:
    client = installed("prometheus_client", "prometheus")
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
    installed("tensorboard", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from flwr_caesar.export.tensorboard import TensorBoard

    with TensorBoard(tmp_path) as sink:
        strategy = trained(sink)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    up = [(event.step, event.value) for event in read.Scalars("train/bytes_up")]
    assert up == [(r.server_round, float(r.bytes_up)) for r in strategy.history]
    assert [e.step for e in read.Scalars("test/accuracy")] == [0, 1, 2]


def test_mlflow_reads_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    installed("mlflow", "mlflow")
    from mlflow import MlflowClient

    from flwr_caesar.export.mlflow import MLflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with MLflow("digits", tracking_uri=uri, settings={"lr": 0.1}) as sink:
        strategy = trained(sink)
    client = MlflowClient(uri)
    up = client.get_metric_history(sink.run_id, "train/bytes_up")
    assert [(m.step, m.value) for m in up] == [
        (r.server_round, float(r.bytes_up)) for r in strategy.history
    ]
    run = client.get_run(sink.run_id)
    assert run.data.metrics["test/accuracy"] == 0.2
    assert run.data.params == {"lr": "0.1"}
    assert run.info.status == "FINISHED"
    failed = MLflow("digits", tracking_uri=uri)  # in the experiment that is there
    failed.close(failed=True)
    assert client.get_run(failed.run_id).info.status == "FAILED"


def test_wandb_writes_what_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    installed("wandb", "wandb")
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    from flwr_caesar.export.wandb import WandB

    # Longer than a block of the log, into which W&B's records may fall anywhere.
    settings = {"lr": 0.1, "notes": "long " * 10_000}
    with WandB(mode="offline", folder=tmp_path, settings=settings) as sink:
        strategy = trained(sink)
    wandb.teardown()  # its own process writes the file on after the run is finished
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = [Record.FromString(data) for data in logged(file.read_bytes())]
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
        for items in (record.history.item for record in records if record.history.item)
    ]
    up = [
        (row["round"], row["train/bytes_up"]) for row in rows if "train/bytes_up" in row
    ]
    assert up == [(r.server_round, float(r.bytes_up)) for r in strategy.history]
    assert [row["test/accuracy"] for row in rows if "test/accuracy" in row][-1] == 0.2
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [0]


def logged(data: bytes) -> list[bytes]:
    """Return the records of a log in LevelDB's form, put together from their pieces."""
    whole, last = 1, 4  # kinds of pieces; between them are the first and the middle
    found, pieces, place = [], b"", 7  # behind W&B's own head
    while place < len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        size = int.from_bytes(data[place + 4 : place + 6], "little")
        kind = data[place + 6]
        pieces += data[place + 7 : place + 7 + size]
        if kind in (whole, last):
            found.append(pieces)
            pieces = b""
        place += 7 + size
    return found
