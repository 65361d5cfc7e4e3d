"""How large and how repetitive two trees of this repository are.

    mkdir before && git archive 5d7c878 | tar -x -C before
    pip install pylint  # for symilar, which counts what is repeated
    python benchmarks/structure.py --before before

Prints the table of docs/history.md. Methods are functions and properties of classes of
ours, dunder ones left out. A pair is two files with at least four equal lines in a row,
comments, docstrings, imports and signatures not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
SOURCES = ("flwr_caesar", "strategies", "clients", "deploy")
ROWS = (
    "attributes of a `FedComLoc` object",
    "its methods, inherited ones of ours included",
    "object of ours with most attributes",
    "object of ours with most methods",
    "lines of the largest source file",
    "source files above 400 lines",
    "pairs of repeated places, all sources",
    "pairs of repeated places, codecs",
)


def methods(cls: type) -> set[str]:
    """Return the functions and properties of a class that are ours."""
    return {
        name
        for each in cls.__mro__
        if each.__module__.startswith("flwr_caesar")
        for name, value in vars(each).items()
        if callable(value) or isinstance(value, property)
        if not (name.startswith("__") and name.endswith("__"))
    }


def objects_of(root: object) -> list[object]:
    """Return an object and all of ours that it holds, however deep."""
    found: list[object] = []
    waiting = [root]
    while waiting:
        each = waiting.pop()
        ours = type(each).__module__.startswith("flwr_caesar")
        if not ours or any(each is known for known in found):
            continue
        found.append(each)
        waiting += getattr(each, "__dict__", {}).values()
    return found


def look() -> dict[str, str]:
    """Describe the objects of the tree that this process imports."""
    from flwr.serverapp.strategy import FedAvg

    from flwr_caesar.strategies import FedComLoc

    strategy = FedComLoc(FedAvg(), lr=0.1)
    objects = objects_of(strategy)
    widest = max(objects, key=lambda each: len(getattr(each, "__dict__", {})))
    busiest = max(objects, key=lambda each: len(methods(type(each))))
    return {
        ROWS[0]: str(len(vars(strategy))),
        ROWS[1]: str(len(methods(type(strategy)))),
        ROWS[2]: f"{len(vars(widest))}, `{type(widest).__name__}`",
        ROWS[3]: f"{len(methods(type(busiest)))}, `{type(busiest).__name__}`",
    }


def count(tree: Path) -> dict[str, str]:
    """Describe the files of a tree."""
    sources = [
        path for folder in SOURCES for path in sorted((tree / folder).rglob("*.py"))
    ]
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in sources}
    largest = max(lines, key=lambda path: lines[path])
    codecs = [path for path in sources if "codec" in path.relative_to(tree).parts]
    return {
        ROWS[4]: f"{lines[largest]}, `{largest.relative_to(tree)}`",
        ROWS[5]: str(sum(n > 400 for n in lines.values())),
        ROWS[6]: _pairs(sources),
        ROWS[7]: _pairs(codecs),
    }


def _pairs(paths: list[Path]) -> str:
    if shutil.which("symilar") is None:
        return "not counted"
    options = ["duplicates=4", "ignore-comments", "ignore-docstrings"]
    options += ["ignore-imports", "ignore-signatures"]
    told = subprocess.run(
        ["symilar", *(f"--{option}" for option in options), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    sizes = [int(n) for n in re.findall(r"similar lines in (\d+) files", told)]
    return str(sum(n * (n - 1) // 2 for n in sizes))


def describe_tree(tree: Path) -> dict[str, str]:
    """Describe a tree, its objects in a process of their own."""
    from refactoring import lay_out

    with tempfile.TemporaryDirectory() as folder:
        lay_out(tree, Path(folder))
        told = subprocess.run(
            [sys.executable, __file__, "--look"],
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found: dict[str, Any] = json.loads(told)
    return {**found, **count(tree)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.look:
        print(json.dumps(look()))
        return
    if args.before is None:
        parser.error("--before: the tree to compare with")
    before, now = describe_tree(args.before.resolve()), describe_tree(HERE)
    print("| | before | now |\n| --- | --: | --: |")
    for row in ROWS:
        print(f"| {row} | {before[row]} | {now[row]} |")


if __name__ == "__main__":
    main()
