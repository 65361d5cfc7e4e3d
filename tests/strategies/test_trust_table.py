"""The table of limits in docs/trust.md says what the constants say."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from flwr_caesar.strategies import Guard

DOC = Path(__file__).parents[2] / "docs" / "trust.md"


def rows() -> list[list[str]]:
    section = DOC.read_text().split("## Limits of a reply")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_limit_is_what_the_table_says(row) -> None:
    _, _, name, value, where = (cell.strip("`") for cell in row)
    found = import_module(where)
    for part in name.split("."):
        found = getattr(found, part)
    if value:
        assert found == float(value)
    else:
        assert callable(found)


def test_the_guards_defaults_are_as_written() -> None:
    written = re.findall(r"`(\w+)` = ([\d.]+)", DOC.read_text())
    assert {name: float(value) for name, value in written} == vars(Guard())
