"""A CSV file that grows is at each moment what writing it anew would make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.results.files import GrowingCsv, write_csv

ROWS: list[dict[str, Any]] = [
    {"round": 1, "why": 'a "quoted", reason', "bytes": 3},
    {"round": 2, "why": None, "bytes": 5},
    {"round": 3, "why": "a reason\nof two lines", "bytes": 7},
]


def test_it_is_the_file_of_all_rows(tmp_path: Path) -> None:
    growing = GrowingCsv(tmp_path / "growing.csv")
    for count in (0, 1, 1, 3):
        growing.write(ROWS[:count])
        write_csv(tmp_path / "whole.csv", ROWS[:count])
        assert (tmp_path / "growing.csv").is_file() == (count > 0)
        if count:
            found = (tmp_path / "growing.csv").read_bytes()
            assert found == (tmp_path / "whole.csv").read_bytes()


def test_rows_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "growing.csv"
    growing = GrowingCsv(path)
    growing.write(ROWS[:2])
    path.write_text("", encoding="utf-8")
    growing.write(ROWS)
    assert path.read_text(encoding="utf-8").startswith("3,")


def test_a_new_column_makes_the_file_anew(tmp_path: Path) -> None:
    growing = GrowingCsv(tmp_path / "growing.csv")
    growing.write(ROWS[:2])
    rows = [*ROWS[:2], {**ROWS[2], "watts": 4.5}]
    growing.write(rows)
    write_csv(tmp_path / "whole.csv", rows)
    found = (tmp_path / "growing.csv").read_bytes()
    assert found == (tmp_path / "whole.csv").read_bytes()


def test_after_a_write_that_failed_the_next_one_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing.csv"
    growing = GrowingCsv(path)
    growing.write(ROWS[:1])
    whole = path.read_bytes()

    def full(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(OSError, match="no space"):
            growing.write(ROWS[:2])
    path.write_bytes(whole + b"2,torn")
    growing.write(ROWS)
    write_csv(tmp_path / "whole.csv", ROWS)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
