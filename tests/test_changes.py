"""Changelog fragments have names that the release finds, and whole sentences."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_fragments_are_found_and_whole() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    setup = tomllib.loads(text)["tool"]["towncrier"]
    kinds = {kind["directory"] for kind in setup["type"]}
    for path in (ROOT / setup["directory"]).iterdir():
        if path.name in setup["ignore"]:
            continue
        _, kind, ending = path.name.split(".")
        assert path.name.startswith("+"), path.name
        assert kind in kinds, path.name
        assert ending == "md", path.name
        entry = path.read_text(encoding="utf-8")
        assert entry.rstrip().endswith("."), path.name
        assert all(len(line) <= 88 for line in entry.splitlines()), path.name


def test_the_changelog_says_where_they_go() -> None:
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert log.count("<!-- towncrier release notes start -->\n") == 1
