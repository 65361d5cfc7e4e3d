"""One set of defaults: constructors, the runner's files and the pages agree."""

from __future__ import annotations

from typing import Any

import pytest

from flwr_caesar import strategies

from .options import CONF, PAGES, ROOT, conf_values, defaults, with_tables


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_options_of_the_code(name: str) -> None:
    page = ROOT / PAGES[name]
    text = page.read_text(encoding="utf-8")
    assert f"<!-- options {name} -->" in text, "add the marker"
    assert text == with_tables(page), "run python -m tests.options"


def test_every_strategy_has_a_page() -> None:
    made = {
        name
        for name in strategies.__all__
        if isinstance(getattr(strategies, name), type)
        and issubclass(getattr(strategies, name), strategies.CompressedStrategy)
    }
    # Neither of these has options of its own.
    assert made - {"CompressedStrategy", "Uncompressed"} == PAGES.keys() - {
        "WrapperOptions"
    }


def test_every_file_of_the_runner_is_compared() -> None:
    files = {file.stem for file in (ROOT / "conf" / "strategy").glob("*.yaml")}
    assert files == CONF.keys()


@pytest.mark.parametrize("file", CONF)
def test_the_runner_sets_what_the_constructor_would(file: str) -> None:
    owner, other = CONF[file]
    own: dict[str, Any] = {} if owner == "Uncompressed" else defaults(owner)
    different = {k for k, v in conf_values(file).items() if v != own[k]}
    assert different == set(other)
