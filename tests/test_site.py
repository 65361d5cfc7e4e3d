"""The site has every page once, and its links lead where those of the files do."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: the extra 'docs' has it")

from mkdocs.config import load_config
from mkdocs.structure.files import get_files

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config() -> Any:
    config = load_config(str(ROOT / "mkdocs.yml"), plugins=[], hooks=[])
    config.plugins._current_plugin = "hooks"  # who makes pages, as mkdocs notes it
    return config


def pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages(part)]


def test_every_page_is_in_the_navigation_once(hooks: ModuleType, config: Any) -> None:
    named = Counter(pages(hooks.on_config(config).nav))
    assert [page for page, times in named.items() if times > 1] == []
    written = {p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")}
    assert set(named) == {page.as_posix() for page in written} | set(hooks.ELSEWHERE)


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("index.md", "[a](docs/sync.md#the-law)", "[a](sync.md#the-law)"),
        ("index.md", "[a](docs/benchmarks/)", "a (`docs/benchmarks`)"),
        ("index.md", "[a](LICENSE)", "a (`LICENSE`)"),
        ("index.md", "![a](docs/watch.png)", "![a](watch.png)"),
        ("android.md", "[`b`](../tests/test_site.py)", "`b`"),
        ("history.md", "[a](../ARCHITECTURE.md#words)", "[a](architecture.md#words)"),
        (
            "choose.md",
            "[a](../examples/scaffold/README.md)",
            "[a](examples/scaffold.md)",
        ),
        ("examples/index.md", "[a](scaffold)", "[a](scaffold.md)"),
        ("exporting/mlflow.md", "[a](../exporting.md)", "[a](../exporting.md)"),
        ("sync.md", "[a](nowhere.md)", "[a](nowhere.md)"),
        ("sync.md", "[a](#the-law) [b](https://flower.ai)", None),
    ],
)
def test_a_link_leads_to_the_same(
    hooks: ModuleType, config: Any, page: str, link: str, there: str | None
) -> None:
    files = hooks.on_files(get_files(config), config)
    shown = type("Page", (), {"file": files.get_file_from_path(page)})
    assert hooks.on_page_markdown(link, shown, config, files) == (there or link)
