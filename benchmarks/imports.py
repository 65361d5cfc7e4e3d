"""Milliseconds that importing us adds to importing Flower.

On a SuperNode each message is a new process, so every import is paid each time. Each
statement runs in fresh interpreters, in turn; the least are printed and written to
docs/benchmarks/imports.md.

    python benchmarks/imports.py
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import describe
from first_message import ROUND, answer, record

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "imports.md"
SERVER = "import flwr.serverapp.strategy"
DEVICE = "import flwr.clientapp"
CASES = (
    ("import flwr_caesar", "pass"),
    (f"{SERVER}; import flwr_caesar.strategies", SERVER),
    (f"{DEVICE}; import flwr_caesar.clients", DEVICE),
    (f"{DEVICE}; import flwr_caesar.clients.handling", DEVICE),
)


def milliseconds(statement: str, before: str) -> tuple[float, float]:
    """Return the CPU time of a fresh interpreter, and of a statement after another."""
    code = (
        f"import time; {before}; start = time.process_time(); {statement}; import sys; "
        "assert 'torch' not in sys.modules; end = time.process_time(); "
        "print(end, end - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
    )
    whole, ours = map(float, done.stdout.split())
    return whole * 1e3, ours * 1e3


def least(statement: str, before: str, runs: int) -> tuple[float, float]:
    """Return the least of some runs, each for itself."""
    milliseconds(statement, before)
    pairs = [milliseconds(statement, before) for _ in range(runs)]
    whole, ours = map(min, zip(*pairs, strict=True))
    return whole, ours


def main() -> None:
    """Measure all cases and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="fresh processes per case")
    runs = parser.parse_args().runs
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows = []
    start = time.monotonic()
    for with_us, without in CASES:
        whole, ours = least(with_us, without, runs)
        rows.append(f"| `{with_us}` | {whole:.0f} | {ours:.1f} |")
        print(rows[-1], f"({time.monotonic() - start:.0f} s)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder))
        answers = [answer(Path(folder)) for _ in range(runs)]
    modules = answers[0][0]
    whole, ours = least("; ".join(f"import {each}" for each in modules), DEVICE, runs)
    what = f"`{DEVICE}`; then the {len(modules)} modules of a message of `Caesar`"
    rows.append(f"| {what} | {whole:.0f} | {ours:.1f} |")
    first = 1e3 * min(seconds for _, seconds in answers)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        "# Import time",
        "",
        "CPU milliseconds of a fresh interpreter, the least of runs in turn; torch is",
        "installed and not imported. `flwr_caesar.clients` is what an app imports, and",
        "`handling` what a message imports before it knows which codec it needs. The",
        "last row has all modules, ours and others', that a process has imported when",
        f"it has answered a request of `Caesar(FedAvg())`, that of round {ROUND}, with",
        "its state in a folder.",
        "",
        "| statement | whole process | our part |",
        "| --- | --: | --: |",
        *rows,
        "",
        f"A process's first message takes {first:.1f} CPU milliseconds more than the",
        "same message again: the imports, and what is made at its first use.",
        "",
        f"Load of the machine at the end, its own share included: {load}.",
        "",
        describe(f"python benchmarks/imports.py --runs {runs}"),
    ]
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
