"""The page on what goes wrong quotes messages and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flwr_caesar import strategies

from .options import PAGES, defaults

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("strategies", "clients", "flwr_caesar")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
MESSAGES = (
    "holds NaN or infinity",
    "the device needs a whole model",
    "no reply before the round closed",
    "All control variates start from 0 again",
    "could be used",
    "times its bound",
    "decodes differently here and on the device",
    "frame continues from codec state",
    "Upload memory:",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_quoted_is_one_that_is_written(message: str) -> None:
    assert message in TEXT
    assert message in SOURCES


def test_a_setting_that_is_named_is_one_of_a_strategy() -> None:
    known = {option for name in PAGES for option in defaults(name)}
    named = set(re.findall(r"`strategy\.(\w+)(?:=[\w.]+)?`", TEXT))
    assert len(named) > 12
    attributes = {"history", "resets"}
    assert named - attributes <= known
    assert hasattr(strategies.FedComLoc, "resets")


def test_a_page_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([\w/.-]+\.md)(?:#[\w-]+)?\)", TEXT)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).is_file(), link
