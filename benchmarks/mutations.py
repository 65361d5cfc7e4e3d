"""Break the code in small ways, and see whether a test notices.

    python benchmarks/mutations.py --seconds 1800 --seed 1 --rows build/mutations.jsonl
    python benchmarks/mutations.py --table --rows build/mutations.jsonl

A mutation changes one node of a file's syntax tree: a comparison, an operator, a
constant, a condition, or a statement that is left out. So many are drawn from all of
codec, sync, plan and strategies as fit in the time; each is judged by those files of
its room's tests that name its module, until one fails. A copy of the sources is
changed, never the sources themselves. `--named` judges those of `NAMED`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The installed package has these inside; the tree has them beside it.
BESIDE = ("clients", "conf", "deploy", "strategies")
ROOMS = {
    "codec": ("flwr_caesar/codec", "tests/codec"),
    "sync": ("flwr_caesar/sync", "tests/sync"),
    "plan": ("flwr_caesar/plan", "tests/plan"),
    "strategies": ("strategies", "tests/strategies"),
}
# Not judged by tests: they are tools of the tests themselves.
LEFT_OUT = {"mutate.py", "testing.py", "__init__.py"}
# Of processor time; a mutation that needs more has no end.
MOST_SECONDS = 150
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
# file, what is there, what is put there: each survived the tests once.
NAMED = (
    ("flwr_caesar/sync/server.py", "max(now, head.incarnation + 1)", "now"),
    (
        "strategies/fedcomloc_method.py",
        "facts[node_id] = ControlFacts(before, owes=True).pack()",
        "pass",
    ),
    (
        "flwr_caesar/sync/device.py",
        "if header.order <= state.order:\n        return state, {}\n    judged",
        "judged",
    ),
    (
        "flwr_caesar/sync/residual.py",
        "if left is not None and left.shape != array.shape:",
        "if False:",
    ),
    ("strategies/grid.py", "math.ceil((1.0", "math.floor((1.0"),
    (
        "flwr_caesar/plan/estimates.py",
        "observe(slots, _rate(bytes_up, seconds_up))",
        "observe(slots, _rate(bytes_down, seconds_up))",
    ),
    (
        "strategies/mean.py",
        "value.dtype.type(weight / self._weight)",
        "value.dtype.type(1 / len(self._bases))",
    ),
    ("flwr_caesar/plan/estimates.py", "_TRUSTED = 3", "_TRUSTED = 2"),
    (
        "flwr_caesar/plan/batch.py",
        "np.floor(quotient * (1 + 1e-9))",
        "np.floor(quotient)",
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
    """

    room: str
    path: str
    line: int
    before: str
    after: str
    source: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print_table([json.loads(line) for line in options.rows.open()])
        return
    until = time.monotonic() + options.seconds
    mutations = named() if options.named else drawn(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for mutation in mutations:
            if time.monotonic() > until:
                break
            row = judged(copy, mutation)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")


def named() -> Iterator[Mutation]:
    for path, before, after in NAMED:
        source = (ROOT / path).read_text()
        assert source.count(before) == 1, (path, before)
        line = source[: source.index(before)].count("\n") + 1
        room = next(room for room, (at, _) in ROOMS.items() if path.startswith(at))
        changed = source.replace(before, after)
        yield Mutation(room, path, line, before, after, changed)


def drawn(seed: int) -> Iterator[Mutation]:
    """Draw mutations without end, each room as often as the others."""
    rng = random.Random(seed)
    places = {room: list(_places(room)) for room in ROOMS}
    for each in places.values():
        rng.shuffle(each)
    while any(places.values()):
        for room, each in places.items():
            if each:
                yield _mutated(room, *each.pop())


def _places(room: str) -> Iterator[tuple[Path, int]]:
    """Yield files and numbers of nodes that can be changed."""
    for path in sorted((ROOT / ROOMS[room][0]).rglob("*.py")):
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


def copied(folder: Path) -> Path:
    """Copy what tests need, the packages where an installation has them."""
    shutil.copytree(ROOT / "flwr_caesar", folder / "flwr_caesar")
    for name in BESIDE:
        shutil.copytree(ROOT / name, folder / "flwr_caesar" / name)
    for name in ("tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def judged(copy: Path, mutation: Mutation) -> dict[str, Any]:
    """Run the room's tests on one mutation."""
    room = mutation.path.removeprefix("flwr_caesar/")
    target = copy / "flwr_caesar" / room
    original = target.read_text()
    start = time.monotonic()
    target.write_text(mutation.source)
    try:
        outcome = _tested(copy, mutation)
    finally:
        target.write_text(original)
    return {
        "room": mutation.room,
        "at": f"{mutation.path}:{mutation.line}",
        "before": mutation.before,
        "after": mutation.after,
        "outcome": outcome,
        "seconds": round(time.monotonic() - start, 1),
    }


def _tested(copy: Path, mutation: Mutation) -> str:
    """Return which test fails; empty if none does."""
    folder = copy / ROOMS[mutation.room][1]
    stem = Path(mutation.path).stem
    files = sorted(folder.rglob("test_*.py"))
    likely = [file for file in files if stem in file.stem or stem in file.read_text()]
    likely.sort(key=lambda file: stem not in file.stem)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *map(str, likely or files)],
        cwd=copy,
        env={
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_limited,
    )
    out, _ = process.communicate()
    if process.returncode == -signal.SIGXCPU:
        return f"no end within {MOST_SECONDS} s"
    failed = [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if process.returncode and not failed:
        return out.splitlines()[-1] if out else "cannot start"
    return failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else ""


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 5))


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
