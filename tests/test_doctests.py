"""The examples in docstrings of public modules give what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = (
    "clients",
    "codec",
    "faults",
    "methods",
    "plan",
    "runner",
    "strategies",
    "sync",
    "transport",
)
FINDER = doctest.DocTestFinder(exclude_empty=True)


def modules() -> list[str]:
    names = ["flwr_caesar.records", "flwr_caesar.testing"]
    for package in PACKAGES:
        root = import_module(f"flwr_caesar.{package}")
        inside = pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        names += [module.name for module in inside]
    return names


def examples() -> list[doctest.DocTest]:
    found = []
    for name in modules():
        module = import_module(name)
        found += [test for test in FINDER.find(module) if test.examples]
    return found


def test_every_example_is_tried() -> None:
    tried = {Path(example.filename or "") for example in examples()}
    for package in (*PACKAGES, "deploy", "tasks"):
        root = Path(import_module(f"flwr_caesar.{package}").__path__[0])
        for path in root.rglob("*.py"):
            assert ">>> " not in path.read_text("utf-8") or path in tried, path


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples() -> None:
    names = {example.name for example in examples()}
    assert {"flwr_caesar.strategies.topk.TopK"} <= names
