"""Every list of codecs and methods has all of them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import flwr_caesar.conf
from flwr_caesar.codec.contract import registry
from flwr_caesar.faults.cases import all_cases
from flwr_caesar.methods import list_methods
from flwr_caesar.methods.registry import _OURS as OURS

from .codec.library import CONFIGS as LAWS
from .codec.samples import CONFIGS as SAMPLES

ROOT = Path(__file__).parent.parent
CODECS = sorted(registry._OURS)
# Names that stand for a method with other defaults; the case of that method runs them.
VARIANTS = {
    "scaffnew": "fedcomloc",
    "fedcomloc_local": "fedcomloc",
    "fedcomloc_global": "fedcomloc",
    "fedcomloc_global_paper": "fedcomloc",
    "sparse_fedavg": "fedcomloc",
    "caesar_whole": "caesar",
    "uniform": "caesar",
    "pruning_paper": "pruning",
    "error_bounded_paper": "error_bounded",
    "blog_recipe": "correlation_aware",
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_is_everywhere(codec: str) -> None:
    assert codec in {config["id"] for config in SAMPLES}
    assert codec in {config["id"] for config in LAWS}
    codecs = (ROOT / "docs" / "codecs.md").read_text(encoding="utf-8")
    assert f"\n| `{codec}` |" in codecs
    wire = (ROOT / "docs" / "wire-format.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*`{codec}`", wire, re.M), "no section in wire-format.md"
    assert (ROOT / "tests" / "vectors").is_dir()


@pytest.mark.parametrize("method", sorted(OURS))
def test_a_method_is_everywhere(method: str) -> None:
    conf = Path(flwr_caesar.conf.__file__).parent / "strategy" / f"{method}.yaml"
    assert f"name: {method}\n" in conf.read_text(encoding="utf-8") or method in VARIANTS
    docs = "".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")
    )
    constructor = OURS[method].strategy.partition(":")[2]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{constructor}" in readme + docs
    if method != "fedavg":  # plain arrays: there are no laws to keep
        strategies = {case.strategy for case in all_cases().values()}
        assert VARIANTS.get(method, method) in strategies


def test_every_experiment_has_its_row() -> None:
    conf = Path(flwr_caesar.conf.__file__).parent / "experiment"
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {path.stem for path in conf.glob("*.yaml")} <= named


def test_the_way_of_one_upload_is_that_of_the_code() -> None:
    history = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    way = history.partition("Now:\n")[2].partition("\n\nEach is")[0]
    hops = re.findall(r"`([a-z]+/\w+\.py): (?:(\w+)\.)?(\w+)`", way)
    assert len(hops) > 12
    for name, owner, function in hops:
        package = importlib.import_module(f"flwr_caesar.{name.partition('/')[0]}")
        file = Path(package.__path__[0]) / name.partition("/")[2]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        owners = [n for n in tree.body if getattr(n, "name", "") == owner]
        body = owners[0].body if owner else tree.body
        assert function in {getattr(n, "name", "") for n in body}, (name, function)


def test_ours_come_first() -> None:
    assert list_methods()[: len(OURS)] == list(OURS)
