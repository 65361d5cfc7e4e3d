"""The examples in docstrings of public modules give what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

PACKAGES = ("codec", "methods", "plan", "strategies", "sync", "clients")
FINDER = doctest.DocTestFinder(exclude_empty=True)


def modules() -> list[str]:
    names = ["flwr_caesar.records", "flwr_caesar.testing", "flwr_caesar.transport"]
    for package in PACKAGES:
        root = import_module(f"flwr_caesar.{package}")
        names += [
            f"{root.__name__}.{module.name}"
            for module in pkgutil.iter_modules(root.__path__)
        ]
    return names


def examples() -> list[doctest.DocTest]:
    found = []
    for name in modules():
        module = import_module(name)
        found += [test for test in FINDER.find(module) if test.examples]
    return found


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples() -> None:
    names = {example.name for example in examples()}
    assert {"flwr_caesar.strategies.topk.TopK"} <= names
