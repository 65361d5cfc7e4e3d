"""What a strategy tells of its rounds, from an app of one's own, without the runner."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from flwr.app import MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.methods.registry import _OURS as OURS
from flwr_caesar.results.amounts import amount, column_unit
from flwr_caesar.results.style import STYLES, styles
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.report import table
from flwr_caesar.runner.text import whole_rows
from flwr_caesar.strategies import Caesar, TopK, Uncompressed

from ..strategies.apps import initial_model, numpy_app
from ..strategies.local_grid import LocalGrid


def trained(make=TopK, rounds=3, *, tested=True, **options):
    random.seed(0)
    strategy = make(FedAvg(), **options)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 3)

    def evaluate(server_round, arrays):
        accuracy = 0.5 + 0.1 * server_round
        return MetricRecord({"accuracy": accuracy, "loss": 1.0})

    strategy.start(
        grid,
        initial_model(),
        num_rounds=rounds,
        evaluate_fn=evaluate if tested else None,
    )
    return strategy


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (4_210, "4.21 kB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (1_720_000, "1.72 MB"),
        (171_480_000, "171 MB"),
        (12_345_678_901, "12.35 GB"),
    ],
)
def test_an_amount_never_reads_zero(nbytes: int, text: str) -> None:
    assert amount(nbytes) == text


def test_a_column_is_in_kilobytes_where_megabytes_read_zero() -> None:
    assert column_unit([4_000, 2_000_000])[1] == "kB"
    assert column_unit([2_000_000, None, 0])[1] == "MB"
    assert column_unit([])[1] == "MB"


def test_a_report_has_the_rounds_and_what_was_saved() -> None:
    strategy = trained()
    text = strategy.report()
    head, *_ = text.splitlines()
    assert head.startswith("TopK, 3 rounds, 80.00 % accuracy.")
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1].strip() for row in rows] == ["1", "2", "3"]
    assert "80.00 %" in rows[-1]
    sent = sum(r.bytes_up + r.bytes_down for r in strategy.history)
    layout = strategy._exchange.layout
    # Three devices train and evaluate, three rounds, and a model comes back from each.
    raw = layout.nbytes * 3 * 3 * 3
    assert f"{raw / sent:.1f} × fewer than uncompressed" in head


def test_plain_traffic_saves_nothing() -> None:
    text = trained(Uncompressed).report()
    assert ": 1.0 × fewer" in text


def test_without_a_test_there_is_no_accuracy() -> None:
    text = trained(tested=False).report()
    assert "accuracy" not in text
    assert Caesar(FedAvg()).report() == "Caesar: no rounds yet."


def test_what_was_not_used_is_told() -> None:
    random.seed(0)
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    grid = LocalGrid(
        numpy_app(mods=[compression_mod]),
        3,
        tamper=lambda reply, node: None if node == 2 else reply,
    )
    strategy.start(grid, initial_model(), num_rounds=1, timeout=0.01)
    assert "1 of 3 replies were not used" in strategy.report()


def test_a_history_is_one_line_of_text_and_still_a_list() -> None:
    strategy = trained()
    line = repr(strategy.history)
    assert "\n" not in line
    assert len(line) < 200
    assert "3 rounds, 6 phases" in line
    assert [r.server_round for r in strategy.history] == [1, 1, 2, 2, 3, 3]
    assert strategy.history == list(strategy.history)
    assert repr(TopK(FedAvg()).history) == "<History: no rounds yet>"


def test_what_is_saved_is_a_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    strategy = trained(tested=True)
    strategy.save(tmp_path / "run")
    found = {file.name for file in (tmp_path / "run").iterdir()}
    assert found == {
        "rounds.csv",
        "devices.csv",
        "summary.json",
        "report.md",
        "picture.png",
    }
    rounds = whole_rows(tmp_path / "run" / "rounds.csv")
    assert [row["round"] for row in rounds] == ["0", "1", "2", "3"]
    assert rounds[-1]["accuracy"] == "0.8"
    devices = whole_rows(tmp_path / "run" / "devices.csv")
    assert len(devices) == 18
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    up = sum(int(row["bytes_up"]) for row in devices)
    assert summary["bytes_up"] == up == int(rounds[-1]["total_bytes_up"])
    assert summary["accuracy"] == pytest.approx(0.8)
    # The runner's own reader takes it.
    assert "80.00 %" in table([Outcome.read(tmp_path / "run")])


def test_without_accuracy_a_saved_run_has_not_failed(tmp_path: Path) -> None:
    trained(tested=False).save(tmp_path)
    assert "failed" not in table([Outcome.read(tmp_path)])


def test_each_strategy_looks_like_no_other() -> None:
    assert len(set(STYLES.values())) == len(STYLES)
    assert set(OURS) <= STYLES.keys()  # one look in all pictures
    names = [*STYLES, "topk density=0.1", "topk density=0.2", "mine", "yours"]
    looks = styles(names)
    assert len(set(looks)) == len(looks)
    assert styles(["topk"]) == [looks[names.index("topk")]]
    assert styles(["TopK"]) == styles(["topk"])
