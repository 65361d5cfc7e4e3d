"""Break the code in small ways, and see whether a test notices.

    python benchmarks/mutations.py --named --rows build/named.jsonl
    python benchmarks/mutations.py --each 20 --seed 1 --rows build/mutations.jsonl
    python benchmarks/mutations.py --again --rows build/mutations.jsonl
    python benchmarks/mutations.py --table --rows build/mutations.jsonl

A mutation changes one node of a file's syntax tree: a comparison, an operator, a
constant, a condition, or a statement that is left out. So many are drawn from each
room. Each is judged by the tests that mirror its file and by laws of its room, until
one fails; `--again` gives survivors to all tests of their room. A copy of the sources
is changed, never the sources themselves. What is in the rows already is not run again,
so any of these may be stopped and go on. `--named` judges those of `NAMED`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "mutations"
# The installed package has these inside; the tree has them beside it.
BESIDE = ("clients", "conf", "deploy", "strategies")
ROOMS = {
    "codec": "flwr_caesar/codec",
    "sync": "flwr_caesar/sync",
    "plan": "flwr_caesar/plan",
    "transport": "flwr_caesar/transport",
    "strategies": "strategies",
    "clients": "clients",
}
LAWS = {
    "codec": ("codec/test_vectors.py",),
    "sync": ("sync/test_scenarios.py", "sync/test_server.py", "sync/test_device.py"),
    "plan": ("plan",),
    "transport": ("transport",),
    "strategies": ("strategies/test_mean.py", "strategies/test_exchange.py"),
    "clients": ("clients/test_mod.py",),
}
# Not judged by tests: they are tools of the tests themselves.
LEFT_OUT = {"mutate.py", "suite.py", "__init__.py"}
# What tests import besides ours.
PRELOADED = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "hypothesis")
# Of processor time; a mutation that needs more has no end, or its tests are too slow.
MOST_SECONDS = 60
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# File, what is there, what is put there, and the test that is to notice: each survived
# all tests once.
NAMED = (
    (
        "flwr_caesar/sync/server.py",
        "max(now, head.incarnation + 1)",
        "now",
        "sync/test_server.py::test_a_clock_that_is_set_back_and_stays_back_stops_nobody",
    ),
    (
        "strategies/fedcomloc_method.py",
        "facts[node_id] = ControlFacts(before, owes=True).pack()",
        "pass",
        "strategies/test_fedcomloc.py::test_who_broke_the_sum_is_noted_before_the_reset_is",
    ),
    (
        "flwr_caesar/sync/forget.py",
        "if header.order <= state.order:\n        return state, {}\n    judged",
        "judged",
        "sync/test_scenarios.py::"
        "test_nothing_is_given_up_for_a_request_that_was_answered_or_is_older",
    ),
    (
        "flwr_caesar/sync/residual.py",
        "if left is not None and left.shape != array.shape:",
        "if False:",
        "sync/test_scenarios.py::test_what_is_left_of_other_tensors_is_refused_and_kept",
    ),
    (
        "strategies/grid.py",
        "math.ceil((1.0",
        "math.floor((1.0",
        "strategies/test_grid.py::test_a_quorum_is_of_answers_not_of_failures",
    ),
    (
        "flwr_caesar/plan/estimates.py",
        "observe(slots, _rate(bytes_up, seconds_up))",
        "observe(slots, _rate(bytes_down, seconds_up))",
        "plan/test_estimates.py::"
        "test_each_direction_of_a_link_is_learnt_from_its_own_bytes",
    ),
    (
        "strategies/mean.py",
        "value.dtype.type(weight / self._weight)",
        "value.dtype.type(1 / len(self._bases))",
        "strategies/test_mean.py::test_a_mean_over_two_bases_has_both_in_their_shares",
    ),
    (
        "flwr_caesar/plan/estimates.py",
        "_TRUSTED = 3",
        "_TRUSTED = 2",
        "plan/test_estimates.py::test_hand_computed",
    ),
    (
        "flwr_caesar/plan/batch.py",
        "np.floor(quotient * (1 + 1e-9))",
        "np.floor(quotient)",
        "plan/test_batch.py::test_what_rounding_takes_from_a_whole_number_is_given_back",
    ),
)


@dataclass(frozen=True)
class Mutation:
    """One change to one file.

    Parameters
    ----------
    room : str
        Where it is.
    path : str
        The file.
    line : int
        Of the change, in the file as it was.
    before, after : str
        The changed line or statement.
    source : str
        The whole file, changed.
    test : str
        What is to notice; empty if that is to be found.
    """

    room: str
    path: str
    line: int
    before: str
    after: str
    source: str
    test: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.path}:{self.line}: {self.before} -> {self.after}"

    @property
    def installed(self) -> str:
        """The file as an installation has it."""
        return "flwr_caesar/" + self.path.removeprefix("flwr_caesar/")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--each", type=int, default=20, help="of each room")
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print_table(read(options.rows))
        return
    mutations = drawn(options.seed, options.each, options.rooms)
    if options.named:
        mutations = named()
    copied()
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    for name in PRELOADED:
        import_module(name)
    for mutation in mutations:
        before = [row for row in read(options.rows) if row["key"] == mutation.key]
        survived = bool(before) and not before[-1]["outcome"]
        if before and not (options.again and survived and not before[-1]["again"]):
            continue
        tests = [f"tests/{mutation.room}"]
        if not options.again:
            tests = [f"tests/{mutation.test}"] if mutation.test else tests_of(mutation)
        row = judged(mutation, tests) | {"again": options.again}
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["at"], row["before"], "->", row["after"], ":", row["outcome"] or "-")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows, the last one of each mutation."""
    if not path.exists():
        return []
    rows = map(json.loads, path.open())
    return list({row["key"]: row for row in rows}.values())


def named() -> Iterator[Mutation]:
    for path, before, after, test in NAMED:
        source = (ROOT / path).read_text()
        assert source.count(before) == 1, (path, before)
        line = source[: source.index(before)].count("\n") + 1
        room = next(room for room, at in ROOMS.items() if path.startswith(at))
        changed = source.replace(before, after)
        yield Mutation(room, path, line, before, after, changed, test)


def drawn(seed: int, each: int, rooms: Collection[str]) -> Iterator[Mutation]:
    """Draw mutations, rooms in turn."""
    rng = random.Random(seed)
    places = {room: list(_places(room)) for room in ROOMS}
    for every in places.values():
        rng.shuffle(every)
    for i in range(each):
        for room, every in places.items():
            if room in rooms and i < len(every):
                yield _mutated(room, *every[i])


def _places(room: str) -> Iterator[tuple[Path, int]]:
    """Yield files and numbers of nodes that can be changed."""
    for path in sorted((ROOT / ROOMS[room]).rglob("*.py")):
        if path.name in LEFT_OUT:
            continue
        tree = ast.parse(path.read_text())
        for number, node in enumerate(ast.walk(tree)):
            if _can_change(node):
                yield path, number


def _can_change(node: ast.AST) -> bool:
    match node:
        case ast.Compare(ops=[op]) | ast.BinOp(op=op) | ast.BoolOp(op=op):
            return type(op) in SWAPPED
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.UnaryOp(op=ast.Not()) | ast.If() | ast.IfExp() | ast.AugAssign():
            return True
        case ast.Expr(value=ast.Call()) | ast.Raise():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
    return False


def _mutated(room: str, path: Path, number: int) -> Mutation:
    source = path.read_text()
    tree = ast.parse(source)
    node = list(ast.walk(tree))[number]
    before = ast.unparse(node).partition("\n")[0]
    after = _change(tree, node)
    return Mutation(
        room,
        str(path.relative_to(ROOT)),
        node.lineno,
        before,
        after,
        ast.unparse(tree),
    )


def _change(tree: ast.AST, node: Any) -> str:
    """Change a node in place, and return how it reads now."""
    match node:
        case ast.Compare():
            node.ops = [SWAPPED[type(node.ops[0])]()]
        case ast.BinOp() | ast.BoolOp():
            node.op = SWAPPED[type(node.op)]()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value += 1
        case ast.UnaryOp():
            _replace(tree, node, node.operand)
            return ast.unparse(node.operand)
        case ast.If() | ast.IfExp():
            node.test = ast.Constant(value=False)
        case _:
            _replace(tree, node, ast.Pass())
            return "left out"
    return ast.unparse(node).partition("\n")[0]


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and old in value:
                value[value.index(old)] = new  # type: ignore[call-overload]


def copied() -> None:
    """Copy what tests need, the packages where an installation has them."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT / "flwr_caesar", COPY / "flwr_caesar")
    for name in BESIDE:
        shutil.copytree(ROOT / name, COPY / "flwr_caesar" / name)
    for name in ("tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, COPY / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, COPY)


def tests_of(mutation: Mutation) -> list[str]:
    """Return the test files that mirror a file or import it, then the room's laws."""
    stem = Path(mutation.path).stem
    files = sorted((COPY / "tests" / mutation.room).rglob("test_*.py"))
    named = [f for f in files if f.stem.split("_")[1] == stem.split("_")[0]]
    module = re.compile(rf"^(from|import) .*\b{stem}\b", re.MULTILINE)
    imports = [file for file in files if module.search(file.read_text())]
    laws = [COPY / "tests" / law for law in LAWS[mutation.room]]
    return [
        str(file.relative_to(COPY)) for file in dict.fromkeys(named + imports + laws)
    ]


def judged(mutation: Mutation, tests: list[str]) -> dict[str, Any]:
    """Run tests on one mutation."""
    target = COPY / mutation.installed
    original = target.read_text()
    start = time.monotonic()
    target.write_text(mutation.source)
    try:
        outcome = _tested(tests)
    finally:
        target.write_text(original)
    return {
        "key": mutation.key,
        "room": mutation.room,
        "at": f"{mutation.path}:{mutation.line}",
        "before": mutation.before,
        "after": mutation.after,
        "tests": len(tests),
        "outcome": outcome,
        "seconds": round(time.monotonic() - start, 1),
    }


def _tested(tests: list[str]) -> str:
    """Return which test fails; empty if none does.

    In a child that has Flower and pytest already, which take longer to import than most
    tests take to run.
    """
    log = COPY / "pytest.log"
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 5))
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(COPY)
        os.environ["PYTHONPATH"] = str(COPY)
        sys.path.insert(0, str(COPY))
        options = ("-q", "-x", "-p", "no:cacheprovider", "--tb=short")
        code = pytest.main([*options, *tests])
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return f"no end within {MOST_SECONDS} s"
    if not status:
        return ""
    out = log.read_text().splitlines()
    failed = [line for line in out if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        return out[-1] if out else "cannot start"
    return failed[0].split(" - ")[0].removeprefix("FAILED ")


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| room | mutations | caught | survived |\n|---|---:|---:|---:|")
    for room in ROOMS:
        group = [row for row in rows if row["room"] == room]
        caught = sum(bool(row["outcome"]) for row in group)
        print(f"| {room} | {len(group)} | {caught} | {len(group) - caught} |")
    print("\n| where | mutation | judgement |\n|---|---|---|")
    for row in rows:
        if not row["outcome"]:
            print(f"| `{row['at']}` | `{row['before']}` → `{row['after']}` | |")


if __name__ == "__main__":
    main()
