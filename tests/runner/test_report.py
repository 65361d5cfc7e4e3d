"""The comparison compares what is comparable."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.runner.report import Outcome, labels, picture, table
from flwr_caesar.runner.sweep import compare, read_sweep


def outcome(strategy: str, bytes_up: int, *overrides: str) -> Outcome:
    summary: dict[str, Any] = {
        "strategy": strategy,
        "rounds": 2,
        "accuracy": 0.9125,
        "bytes_up": bytes_up,
        "bytes_down": 5_000_000,
        "seconds": 12.34,
    }
    rounds = tuple(
        {
            "round": str(number),
            "accuracy": "0.9",
            "total_bytes_up": str(bytes_up * number // 2),
            "total_bytes_down": "5000000",
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
    assert header[5] == "× fewer bytes up"
    assert plain == ["fedavg", "2", "91.25 %", "8.00", "5.00", "1.0", "12.3"]
    assert compressed == ["topk", "2", "91.25 %", "0.50", "5.00", "16.0", "12.3"]
    assert len({len(line) for line in text.splitlines()}) == 1


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
    assert found == ["1.0", "1.0", "8.0", "16.0", "–"]


def test_labels_tell_runs_apart() -> None:
    runs = [
        outcome("topk", 1, "strategy.density=0.1", "rounds=2"),
        outcome("topk", 1, "strategy.density=0.2", "rounds=2"),
    ]
    assert labels(runs) == ["topk density=0.1", "topk density=0.2"]
    assert labels(runs[:1]) == ["topk"]


def test_a_failed_run_has_a_row() -> None:
    rows = cells(table([outcome("fedavg", 1), Outcome(None, ("strategy=topk",))]))
    assert rows[3][:2] == ["topk", "failed"]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "picture.png"
    picture([outcome("fedavg", 8_000_000), Outcome(None), outcome("topk", 1)], file)
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
        settings = tmp_path / f"{number}-topk" / ".hydra"
        settings.mkdir(parents=True)
        text = f"- rounds={number}\n"
        (settings / "overrides.yaml").write_text(text, encoding="utf-8")
    found = read_sweep(tmp_path)
    assert [o.overrides for o in found] == [(f"rounds={n}",) for n in range(11)]
