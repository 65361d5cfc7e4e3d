"""Faults of many seeds: violations, which guard met what, and the honest devices.

    python benchmarks/faults.py --faults 1000000    some hours on one core
    python benchmarks/faults.py --seconds 200       as many as fit

Seeds count up from `--seed`; for each, every strategy runs once, and the sessions alone
where `--sessions` asks for so many rounds. Prints the table of
docs/benchmarks/faults.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import Counter

from flwr_caesar.faults.cases import CASES
from flwr_caesar.faults.sessions import run_faults
from flwr_caesar.faults.strategies import run_strategy_faults

SIZE = {"devices": 30, "rounds": 120}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=10**6, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=SIZE["devices"])
    parser.add_argument("--rounds", type=int, default=SIZE["rounds"])
    parser.add_argument("--sessions", type=int, default=0, help="rounds of sessions")
    options = parser.parse_args()
    size = {"devices": options.devices, "rounds": options.rounds}
    until = time.monotonic() + options.seconds
    met: Counter[tuple[str, str]] = Counter()
    total, violations, seed = 0, 0, options.seed
    print(f"Python {platform.python_version()}, {platform.machine()}; {size}\n")
    print("| seed | strategy | faults | violations | progress | without faults |")
    print("|---:|---|---:|---:|---:|---:|")
    while total < options.faults and time.monotonic() < until:
        if options.sessions:
            rounds = options.sessions
            report = run_faults(
                seed=seed, devices=200, rounds=rounds, participation=0.5
            )
            total += report.injected
            violations += len(report.violations)
            print(
                f"| {seed} | sessions | {report.injected:,} | "
                f"{len(report.violations)} | | |",
                flush=True,
            )
        for name in CASES:
            if total >= options.faults or time.monotonic() >= until:
                break
            report = run_strategy_faults(name, seed=seed, **size)
            calm = run_strategy_faults(name, seed=seed, severities=(0.0,), **size)
            total += report.injected
            violations += len(report.violations)
            for guard, kinds in report.met.items():
                met.update({(guard, kind): count for kind, count in kinds.items()})
            print(
                f"| {seed} | `{name}` | {report.injected:,} | "
                f"{len(report.violations)} | {report.progress:.2f} | "
                f"{calm.progress:.2f} |",
                flush=True,
            )
            for violation in report.violations:
                print(f"<!-- {violation} -->")
        seed += 1
    print(f"\n{total:,} faults, {violations} violations.\n")
    print("| guard | met | times |\n|---|---|---:|")
    for (guard, kind), count in sorted(met.items()):
        print(f"| {guard} | {kind} | {count} |")


if __name__ == "__main__":
    main()
