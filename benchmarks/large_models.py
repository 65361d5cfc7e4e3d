"""Memory and bytes of a model of 124 million parameters, on real processes.

GPT-2's 148 tensors (498 MB in float32) through a real SuperLink and one SuperNode; the
device adds noise instead of training. Of each process that Flower starts, the kernel's
own high-water mark of the resident set is read a few times a second. Needs some 14 GB
of memory. Writes docs/benchmarks/large-models.md.

    python benchmarks/large_models.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from environment import describe
from rounds import copy_app, run_app

from flwr_caesar.runner.processes import family
from flwr_caesar.runner.superlink import SuperLink

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-models.md"
STRATEGIES = ("topk", "topk-lattice", "caesar", "fedavg")
ROLES = {
    "flwr-serverapp": "ServerApp",
    "flwr-clientapp": "ClientApp",
    "flower-superlink": "SuperLink",
    "flower-supernode": "SuperNode",
}
MEGABYTE = 1e6
ROUNDS = 2
MODEL_BYTES = {"gpt2": 497_759_232, "resnet18": 44_734_408}


class Peaks:
    """Watches how large the processes of a SuperLink grow, until it is left.

    Attributes
    ----------
    peaks : dict of str to int
        The largest high-water mark of each kind of process, in bytes.
    """

    def __init__(self, marker: str) -> None:
        self.peaks: dict[str, int] = {}
        self._marker = marker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            for process in family(-1, self._marker):
                with contextlib.suppress(OSError, ValueError):
                    self._look(Path(f"/proc/{process.pid}"))

    def _look(self, folder: Path) -> None:
        command = (folder / "cmdline").read_bytes().decode()
        role = next((r for name, r in ROLES.items() if name in command), None)
        if role is None:
            return
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak = int(line.split()[1]) * 1024
                self.peaks[role] = max(self.peaks.get(role, 0), peak)


def measure(strategy: str, model: str) -> dict[str, Any]:
    """Return peaks and bytes of a run on processes of its own."""
    with (
        tempfile.TemporaryDirectory() as state,
        SuperLink(simulation=False) as link,
        Peaks(f"FLWR_HOME={link.home}") as watched,
    ):
        app = copy_app(link)
        link.start_supernode(0, 1, node_config=f"state-dir='{state}'")
        measured = run_app(link, app, strategy, ROUNDS, f'model="{model}" nodes=1')
        disk = sum(
            os.path.getsize(os.path.join(folder, name))
            for folder, _, names in os.walk(state)
            for name in names
        )
    return {**measured, "peaks": watched.peaks, "disk": disk}


def row(strategy: str, found: dict[str, Any], nbytes: int) -> str:
    """Return a line of the table."""
    cells = [strategy]
    for role in ROLES.values():
        peak = found["peaks"].get(role, 0)
        cells.append(f"{peak / MEGABYTE:,.0f} ({peak / nbytes:.1f})")
    for way in ("down", "up"):
        first, last = (
            found[key] / MEGABYTE for key in (f"first_{way}", f"bytes_{way}")
        )
        cells.append(f"{first:.1f} / {last:.1f}")
    cells.append(f"{found['disk'] / MEGABYTE:,.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", choices=MODEL_BYTES, default="gpt2", help="others write no table"
    )
    parser.add_argument("--only", nargs="*", help="strategies, in place of all")
    args = parser.parse_args()
    rows = []
    for strategy in args.only or STRATEGIES:
        found = measure(strategy, args.model)
        rows.append(row(strategy, found, MODEL_BYTES[args.model]))
        print(rows[-1], found["seconds"], flush=True)
        if args.model == "gpt2":
            TABLE.write_text(page(rows))


def page(rows: list[str]) -> str:
    """Return the page, with those strategies that were measured."""
    roles = " | ".join(ROLES.values())
    lines = "\n".join(rows)
    nbytes = MODEL_BYTES["gpt2"]
    return f"""# A model of 124 million parameters

GPT-2's 148 tensors, {nbytes / MEGABYTE:.0f} MB in float32, through a real SuperLink and
one SuperNode on loopback; the device adds noise instead of training. The largest
resident set of each process in {ROUNDS} rounds, interpreter included, in MB, and in
parentheses in models; bytes of the first round and of the last; what the device keeps
on its disk. The ClientApp holds the model twice: as it is given, and as it returns it.
It is looked a few times a second, so what a process took in its last moments is missed.
`topk` is `TopK(FedAvg(), density=0.01)`, `topk-lattice` the same with
`downlink="lattice"`, `caesar` is `Caesar(FedAvg())`.

| strategy | {roles} | MB down | MB up | MB on disk |
| --- | --: | --: | --: | --: | --: | --: | --: |
{lines}

{describe(" ".join(["python", "benchmarks/large_models.py", *sys.argv[1:]]))}
"""


if __name__ == "__main__":
    main()
