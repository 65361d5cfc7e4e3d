"""Milliseconds that importing us adds to importing Flower.

On a SuperNode each message is a new process, so every import is paid each time. Each
statement runs in fresh interpreters, in turn; the least are printed and written to
docs/benchmarks/imports.md.

    python benchmarks/imports.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from environment import describe

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "imports.md"
FLOWER = "import flwr.serverapp.strategy"
CASES = (
    ("import flwr_caesar", "pass"),
    (f"{FLOWER}; import flwr_caesar.strategies", FLOWER),
    ("import flwr.clientapp; import flwr_caesar.clients", "import flwr.clientapp"),
    (
        "import flwr.clientapp; import flwr_caesar.clients.handling",
        "import flwr.clientapp",
    ),
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


def main() -> None:
    """Measure all cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="fresh processes per case")
    runs = parser.parse_args().runs
    lines = [
        "# Import time",
        "",
        "CPU milliseconds of a fresh interpreter, the least of runs in turn; torch",
        "is installed and not imported. `flwr_caesar.clients` is what an app imports,",
        "`handling` what a message imports before it knows which codec it needs.",
        "",
        "| statement | whole process | our part |",
        "| --- | --: | --: |",
    ]
    start = time.monotonic()
    for with_us, without in CASES:
        milliseconds(with_us, without)
        pairs = [milliseconds(with_us, without) for _ in range(runs)]
        whole, ours = map(min, zip(*pairs, strict=True))
        lines.append(f"| `{with_us}` | {whole:.0f} | {ours:.1f} |")
        print(lines[-1], f"({time.monotonic() - start:.0f} s)", flush=True)
    lines += ["", describe(f"python benchmarks/imports.py --runs {runs}")]
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
