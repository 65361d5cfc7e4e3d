"""Faults of many seeds: violations, which guard met what, and the honest devices.

    python benchmarks/faults.py --sessions 1000 --seeds 1-7 --rows build/rows.jsonl
    python benchmarks/faults.py --strategies 60 --seeds 1-2 --rows build/rows.jsonl
    python benchmarks/faults.py --table --rows build/rows.jsonl
    python benchmarks/faults.py --halved caesar_paper --rows build/half.jsonl

The first two run so many rounds for each seed and append a row for each run; what is
there already is not run again, so either may be stopped and go on. The third prints
the tables of docs/benchmarks/faults.md. Every strategy runs three times: with faults,
without any, and without any but with so few devices that as many updates are used.
The fourth runs one strategy with every fault in each round, then with the chances of
one kind of fault halved, and prints what that does to the model.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flwr_caesar.faults import devices as devices_module
from flwr_caesar.faults import grid as grid_module
from flwr_caesar.faults import odds
from flwr_caesar.faults.cases import all_cases
from flwr_caesar.faults.report import FaultReport
from flwr_caesar.faults.sessions import run_faults
from flwr_caesar.faults.strategies import run_strategy_faults

SESSIONS = "sessions"
PARTICIPATION = 0.5
QUIET_ROUNDS = 12

HALVED_ROUNDS, HALVED_DEVICES = 40, 12
# By kind: tables of chances, and single chances.
KINDS: dict[str, tuple[list[dict[str, float]], list[str]]] = {
    "messages": ([odds.MESSAGE_FAULTS], ["REORDER"]),
    "deadlines": ([], ["DEADLINE"]),
    "devices": (
        [
            odds.DEVICE_FAULTS,
            devices_module._FAULTS_ON_DISK,
            odds.DISK_FAULTS,
            odds.DEVICE_EVENTS,
        ],
        [],
    ),
    "servers": ([odds.SERVER_FAULTS], []),
}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seeds", type=seeds, default=range(1, 2), help="such as 1-7")
    parser.add_argument("--sessions", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--strategies", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--names", nargs="*", default=list(all_cases()))
    parser.add_argument("--devices", type=int, help="200 for sessions, 16 otherwise")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--halved", metavar="NAME", help="one strategy, by kind")
    options = parser.parse_args()
    if options.halved:
        print_halved(options.halved, options.seeds, options.rows)
        return
    for seed in options.seeds:
        if options.sessions:
            once(options.rows, SESSIONS, seed, options.devices or 200, options.sessions)
        if options.strategies:
            for name in options.names:
                once(
                    options.rows, name, seed, options.devices or 16, options.strategies
                )
    if options.table:
        print_tables(read(options.rows))


def seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def once(path: Path, name: str, seed: int, devices: int, rounds: int) -> None:
    """Run, unless it was, and keep a row of it."""
    key = {"name": name, "seed": seed, "devices": devices, "rounds": rounds}
    if any(key.items() <= row.items() for row in read(path)):
        return
    start = time.process_time()
    row = {**key, **(sessions if name == SESSIONS else strategy)(**key)}
    row["cpu"] = time.process_time() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[Row]:
    return list(map(json.loads, path.open())) if path.exists() else []


def sessions(*, seed: int, devices: int, rounds: int, **_: str) -> Row:
    report = run_faults(
        seed=seed, devices=devices, rounds=rounds, participation=PARTICIPATION
    )
    return told(report)


def strategy(*, name: str, seed: int, devices: int, rounds: int) -> Row:
    meanwhile: list[list[float]] = []

    def run(**options: Any) -> FaultReport:
        meanwhile.append([])
        return run_strategy_faults(
            name,
            seed=seed,
            devices=devices,
            rounds=rounds,
            quiet_rounds=QUIET_ROUNDS,
            on_round=lambda _, run: meanwhile[-1].append(run.progress),
            **options,
        )

    report = run(participation=PARTICIPATION)
    calm = run(participation=PARTICIPATION, severities=(0.0,))
    few = PARTICIPATION * report.applied / calm.applied
    reports = report, calm, run(participation=few, severities=(0.0,))
    half = slice(rounds // 2, rounds)
    return {
        **told(report),
        "meanwhile": [statistics.mean(each[half]) for each in meanwhile],
        "after": [each.progress for each in reports],
        "applied": [each.applied for each in reports],
    }


@contextmanager
def halved(*kinds: str) -> Iterator[None]:
    """Halve the chances of some kinds of faults."""
    with ExitStack() as stack:
        for kind in kinds:
            tables, names = KINDS[kind]
            for table in tables:
                half = {fault: chance / 2 for fault, chance in table.items()}
                stack.enter_context(patch.dict(table, half))
            for name in names:
                half_of_it = getattr(grid_module, name) / 2
                stack.enter_context(patch.object(grid_module, name, half_of_it))
        yield


def print_halved(name: str, seeds: range, path: Path) -> None:
    """Run a strategy with every kind of fault, one of them halved, and all of them."""
    cases = {"nothing": (), **{kind: (kind,) for kind in KINDS}, "all": tuple(KINDS)}
    print("| halved | used in a round | while they go on | after twelve quiet rounds |")
    print("|---|---:|---:|---:|")
    for case, kinds in cases.items():
        rows = []
        for seed in seeds:
            key = {"name": name, "seed": seed, "halved": case}
            known = [row for row in read(path) if key.items() <= row.items()]
            if not known:
                with halved(*kinds):
                    known = [{**key, **one_run(name, seed)}]
                with path.open("a") as file:
                    file.write(json.dumps(known[0]) + "\n")
            rows += known
        columns = [mean(row[key] for row in rows) for key in ("used", "on", "after")]
        print(f"| {case} | " + " | ".join(columns) + " |", flush=True)


def one_run(name: str, seed: int) -> Row:
    progress: list[float] = []

    def note(_: int, run: Any) -> None:
        progress.append(run.progress)

    report = run_strategy_faults(
        name,
        seed=seed,
        devices=HALVED_DEVICES,
        rounds=HALVED_ROUNDS,
        participation=PARTICIPATION,
        severities=(1.0,),
        quiet_rounds=QUIET_ROUNDS,
        on_round=note,
    )
    half = progress[HALVED_ROUNDS // 2 : HALVED_ROUNDS]
    quiet = QUIET_ROUNDS * HALVED_DEVICES
    return {
        "on": statistics.mean(half),
        "after": report.progress,
        "used": (report.applied - quiet) / HALVED_ROUNDS,
        "violations": report.violations,
    }


def told(report: FaultReport) -> Row:
    return {
        "faults": report.faults,
        "met": report.met,
        "violations": report.violations,
    }


def print_tables(rows: list[Row]) -> None:
    total = sum(map(injected, rows))
    broken = [violation for row in rows for violation in row["violations"]]
    spent = sum(row["cpu"] for row in rows)
    print(f"{total:,} faults, {len(broken)} violations, {spent:,.0f} s of CPU time.")
    print(f"Python {platform.python_version()}, {platform.machine()}.\n")
    print("| what | seeds | devices | rounds | faults | violations |")
    print("|---|---|---:|---:|---:|---:|")
    for (name, devices, rounds), group in grouped(rows).items():
        ran = ", ".join(str(row["seed"]) for row in group)
        faults = sum(map(injected, group))
        found = sum(len(row["violations"]) for row in group)
        print(f"| `{name}` | {ran} | {devices} | {rounds} | {faults:,} | {found} |")
    print_progress(rows)
    print_met([row for row in rows if row["name"] == SESSIONS], "The sessions")
    print_met([row for row in rows if row["name"] != SESSIONS], "Whole strategies")
    for violation in broken:
        print(f"- {violation}")


def print_progress(rows: list[Row]) -> None:
    """Columns: with faults, without, without and with as few updates."""
    print(
        "\n| strategy | after: with faults | without | as few "
        "| meanwhile: with faults | without | as few | used |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (name, *_), group in grouped(rows).items():
        if name != SESSIONS:
            columns = [
                mean(row[when][i] for row in group)
                for when in ("after", "meanwhile")
                for i in range(3)
            ]
            used = [sum(row["applied"][i] for row in group) for i in range(3)]
            columns.append(f"{used[0] / used[1]:.0%}")
            print(f"| `{name}` | " + " | ".join(columns) + " |")


def print_met(rows: list[Row], title: str) -> None:
    met: dict[str, Counter[str]] = {}
    for row in rows:
        for guard, kinds in row["met"].items():
            met.setdefault(guard, Counter()).update(kinds)
    print(f"\n{title}:\n\n| guard | faults that it met |\n|---|---|")
    for guard, kinds in sorted(met.items()):
        each = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        print(f"| {guard} | {each} |")


def mean(values: Iterable[float]) -> str:
    every = list(values)
    spread = f" ± {statistics.stdev(every):.2f}" if len(every) > 1 else ""
    return f"{statistics.mean(every):.2f}{spread}"


def injected(row: Row) -> int:
    return sum(row["faults"].values())


def grouped(rows: list[Row]) -> dict[tuple[str, int, int], list[Row]]:
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        key = row["name"], row["devices"], row["rounds"]
        groups.setdefault(key, []).append(row)
    return groups


if __name__ == "__main__":
    main()
