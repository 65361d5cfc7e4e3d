"""The comparison compares what is comparable."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.runner.outcome import Outcome, gather, labels
from flwr_caesar.runner.report import fairness, picture, table, unused
from flwr_caesar.runner.sweep import compare, read_sweep


def outcome(strategy: str, bytes_up: int, *overrides: str, **figures: Any) -> Outcome:
    summary: dict[str, Any] = {
        "strategy": strategy,
        "rounds": 2,
        "accuracy": 0.9125,
        "bytes_up": bytes_up,
        "bytes_down": 5_000_000,
        "seconds": 12.34,
        "seconds_server": 0.5,
        "seconds_device": 1.25,
        **figures,
    }
    rounds = tuple(
        {
            "round": str(number),
            "accuracy": "0.9",
            "total_bytes_up": str(bytes_up * number // 2),
            "total_bytes_down": "5000000",
            "total_virtual_seconds": str(60 * number),
        }
        for number in range(3)
    )
    return Outcome(summary, (f"strategy={strategy}", *overrides), rounds)


def cells(text: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in text.splitlines()]
    return [[cell.strip() for cell in line] for line in lines]


def test_a_table_of_a_sweep() -> None:
    text = table([outcome("fedavg", 8_000_000), outcome("topk", 500_000)])
    header, _, plain, compressed = cells(text)
    assert header[5] == "× fewer, both ways"
    times = ["1.2", "0.5", "12.3"]
    assert plain == ["fedavg", "2", "91.25 %", "8.00", "5.00", "1.0", *times]
    assert compressed == ["topk", "2", "91.25 %", "0.50", "5.00", "2.4", *times]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_replies_that_were_not_used_are_told_with_their_reason() -> None:
    rows = [{"dropped": reason} for reason in ["", "late", "late", "not finite"]]
    run = replace(outcome("topk", 500_000), devices=tuple(rows))
    (said,) = unused([outcome("fedavg", 8_000_000), run])
    assert said.startswith("topk: 3 of 4 replies were not used")
    assert "late" in said
    assert "finite" not in said


def test_without_a_plain_run_there_is_nothing_to_compare_with() -> None:
    assert cells(table([outcome("topk", 500_000)]))[2][5] == "–"


def test_savings_are_within_equal_conditions() -> None:
    runs = [
        outcome("fedavg", 8_000_000, "rounds=1"),
        outcome("fedavg", 16_000_000, "rounds=2"),
        outcome("topk", 1_000_000, "rounds=1"),
        outcome("topk", 1_000_000, "rounds=2"),
        outcome("topk", 1_000_000, "rounds=3"),
    ]
    found = [row[5] for row in cells(table(runs))[2:]]
    assert found == ["1.0", "1.0", "2.2", "3.5", "–"]


def test_labels_tell_runs_apart() -> None:
    runs = [
        outcome("topk", 1, "strategy.density=0.1", "rounds=2"),
        outcome("topk", 1, "strategy.density=0.2", "rounds=2"),
    ]
    assert labels(gather(runs)) == ["topk density=0.1", "topk density=0.2"]
    assert labels(gather(runs[:1])) == ["topk"]


def test_a_failed_run_has_a_row() -> None:
    rows = cells(table([outcome("fedavg", 1), Outcome(None, ("strategy=topk",))]))
    assert rows[3][:3] == ["topk", "–", "failed"]


def reached(up: int | None) -> dict[str, Any]:
    target = {"accuracy": 0.9, "round": None if up is None else 1}
    if up is not None:
        target |= {"bytes_up": up, "bytes_down": 2 * up, "virtual_seconds": 5400.0}
    return {
        "target": target,
        "clock": "virtual",
        "virtual_seconds": 7200.0,
        "waiting_mean": 3.25,
    }


def columns(text: str) -> list[dict[str, str]]:
    header, _, *rows = cells(text)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_seeds_are_one_row_with_their_mean() -> None:
    runs = [
        outcome("topk", 1_000_000, "seed=1", accuracy=0.90),
        outcome("topk", 2_000_000, "seed=2", accuracy=0.94),
        outcome("topk", 9_000_000, "strategy.density=0.9", "seed=1"),
    ]
    first, second = columns(table(runs))
    assert first["seeds"] == "2"
    assert first["test accuracy"] == "92.00 % (90.00–94.00)"
    assert first["MB up"] == "1.50"
    assert second["strategy"] == "topk density=0.9"
    assert second["seeds"] == "1"


def test_to_the_target_both_directions_count() -> None:
    runs = [
        outcome("fedavg", 1, "seed=1", **reached(8_000_000)),
        outcome("fedavg", 1, "seed=2", **reached(4_000_000)),
        outcome("topk", 1, "seed=1", **reached(500_000)),
        outcome("topk", 1, "seed=2", **reached(700_000)),
    ]
    plain, compressed = columns(table(runs))
    assert plain["MB to target"] == "18.00"
    assert compressed["MB to target"] == "1.80"
    assert compressed["× fewer to target"] == "10.0"
    assert compressed["virtual h to target"] == "1.50"
    assert compressed["virtual h"] == "2.00"
    assert compressed["waiting s"] == "3.2"


def test_a_target_that_not_every_seed_reached_has_no_mean() -> None:
    runs = [
        outcome("fedavg", 1, "seed=1", **reached(8_000_000)),
        outcome("topk", 1, "seed=1", **reached(500_000)),
        outcome("topk", 1, "seed=2", **reached(None)),
        outcome("topk", 1, "strategy.density=1", "seed=1", **reached(None)),
    ]
    _, some, none = columns(table(runs))
    assert some["MB to target"] == some["rounds to target"] == "1 of 2"
    assert some["× fewer to target"] == none["× fewer to target"] == "–"
    assert none["MB to target"] == "–"


def test_a_device_counts_once_in_fairness_with_its_latest_report() -> None:
    devices = [("1", "slow", "0.1"), ("2", "fast", "0.8"), ("1", "slow", "0.6")]
    rows = [
        {"node_id": node, "device_class": kind, "accuracy": value}
        for node, kind, value in devices
    ]
    rows.append({"node_id": "3", "device_class": "fast", "accuracy": ""})
    done = outcome("topk", 1)
    (row,) = columns(fairness([Outcome(done.summary, devices=tuple(rows))]) or "")
    assert row["devices"] == "2"
    assert row["mean"] == "70.00"
    assert row["worst tenth"] == row["slow"] == "60.00"
    assert row["fast"] == "80.00"
    assert row["deviation"] == "10.00"
    assert fairness([done]) is None


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "picture.png"
    picture([outcome("fedavg", 8_000_000), Outcome(None), outcome("topk", 1)], file)
    assert file.read_bytes().startswith(b"\x89PNG")
    runs = [outcome("topk", 1, f"seed={n}", **reached(None)) for n in range(3)]
    picture(runs, file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    compare([outcome("topk", 500_000)], tmp_path)
    printed = capsys.readouterr().out
    assert "flwr-caesar[plot]" in printed
    assert str(tmp_path / "comparison.md") in printed
    assert not (tmp_path / "comparison.png").exists()


def test_a_sweep_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in range(11):
        settings = tmp_path / f"{number}-topk"
        if number % 2:  # of before there was an overrides.yaml
            settings /= ".hydra"
        settings.mkdir(parents=True)
        text = f"- rounds={number}\n"
        (settings / "overrides.yaml").write_text(text, encoding="utf-8")
    found = read_sweep(tmp_path)
    assert [o.overrides for o in found] == [(f"rounds={n}",) for n in range(11)]
