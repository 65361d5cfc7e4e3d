"""Limits of what is remembered: they follow the machine, and what they cost is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar, ErrorBounded, machine_memory
from flwr_caesar.strategies.lattice_downlink import LatticeDownlink
from flwr_caesar.transport import arrays_to_record, record_to_arrays

N = 40_000


def run(strategy, rounds=2, devices=2):
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg, context):
        rng = np.random.default_rng(context.node_id)
        arrays = record_to_arrays(msg.content["arrays"])
        moved = {n: a + rng.normal(0, 0.01, a.shape) for n, a in arrays.items()}
        found = {n: a.astype(np.float32) for n, a in moved.items()}
        metrics = MetricRecord({"num-examples": 1})
        content = {"arrays": arrays_to_record(found), "metrics": metrics}
        return Message(RecordDict(content), reply_to=msg)

    model = {"w": np.random.default_rng(0).normal(0, 0.05, N).astype(np.float32)}
    grid = InlineGrid(app, devices)
    strategy.start(grid, arrays_to_record(model), num_rounds=rounds)
    return strategy


def warned(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def inner():
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)


def test_the_limits_follow_the_machine(tmp_path, monkeypatch):
    whole = machine_memory.memory_bytes()
    assert 0 < machine_memory.remembered_bytes() == whole // 8
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    (group / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine_memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine_memory, "_OWN_GROUP", tmp_path / "own")
    assert machine_memory.memory_bytes() >= whole
    (tmp_path / "a" / "memory.max").write_text("8000\n")
    assert machine_memory.memory_bytes() == 8000
    assert LatticeDownlink()._limits["max_bytes"] == 1000
    assert ErrorBounded(inner()).method.upload_memory == 1000
    (group / "memory.max").write_text("4000\n")
    assert machine_memory.memory_bytes() == 4000


def test_versions_that_do_not_fit_are_told_once_and_in_the_report(caplog):
    caplog.set_level(logging.INFO, "flwr")
    strategy = run(Caesar(inner(), versions_memory=2 * 2 * N))
    (told,) = [text for text in warned(caplog) if "versions_memory" in text]
    assert "Of 100 published models (max_versions) 2 are kept" in told
    (note,) = strategy._results().notes
    assert note in told
    assert note in strategy.report()
    assert strategy._results().summary()["notes"] == [note]


def test_a_limit_that_is_not_met_is_not_told(caplog):
    caplog.set_level(logging.INFO, "flwr")
    assert run(Caesar(inner()))._results().notes == ()
    assert run(ErrorBounded(inner()))._results().notes == ()
    assert not [text for text in warned(caplog) if "_memory" in text]


def test_uploads_that_are_forgotten_are_told_once_and_counted(caplog):
    caplog.set_level(logging.INFO, "flwr")
    method = ErrorBounded(inner()).method
    assert method is not None
    size = 8 * N
    strategy = run(ErrorBounded(inner(), upload_memory=int(1.5 * size)), rounds=3)
    (told,) = [text for text in warned(caplog) if "upload_memory" in text]
    (note,) = strategy._results().notes
    assert told.startswith("1 times the server forgot")
    assert int(note.split()[0]) > 1
    assert "upload_memory" in strategy.report()


def test_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="versions_memory"):
        Caesar(inner(), versions_memory=-1)


def test_a_run_tells_what_it_will_take_before_its_first_round(caplog):
    caplog.set_level(logging.INFO, "flwr")
    run(Caesar(inner()), rounds=1)
    texts = [record.getMessage() for record in caplog.records]
    told = [i for i, text in enumerate(texts) if "Expected: " in text]
    first = [i for i, text in enumerate(texts) if "[ROUND 1/1]" in text]
    assert len(told) == 1
    assert told[0] < first[0]
    text = texts[told[0]]
    assert "up to 8 models of 160 kB in memory here, 1.28 MB of " in text
    assert "up to 6, 960 kB, on a device" in text
    caplog.clear()
    run(ErrorBounded(inner()), rounds=1)
    (remembering,) = (
        t for r in caplog.records if "Expected: " in (t := r.getMessage())
    )
    assert "up to 10 models of 160 kB in memory here" in remembering
    assert "up to 7, 1.12 MB, on a device" in remembering
    # 6 bits below the root mean square, and about two for the rest.
    sent = float(text.split("; ")[-1].split(" kB")[0])
    assert sent == pytest.approx(8.05 * N / 8 / 1000, rel=0.05)


def test_a_model_that_cannot_fit_ends_the_run_before_any_work(monkeypatch):
    monkeypatch.setattr(machine_memory, "memory_bytes", lambda: 5 * 4 * N - 1)
    with pytest.raises(MemoryError, match="160 kB takes about 8 times its size"):
        run(Caesar(inner()))
    monkeypatch.setattr(machine_memory, "memory_bytes", lambda: 5 * 4 * N)
    run(Caesar(inner(), versions_memory=1 << 20), rounds=1)
