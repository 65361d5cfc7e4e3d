"""Large and many-tensored models under each strategy, on real processes.

Each case is a SuperLink and SuperNodes of its own; devices add noise instead of
training. Of each process that Flower starts, the kernel's own high-water mark of the
resident set is read a few times a second. GPT-2's sizes need 5 to 10 GB of memory, the
355 million elements 20. Writes docs/benchmarks/large-models.md, in which cases that are
not measured now keep the row that they have.

    python benchmarks/large_models.py lora many resnet18
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import describe
from rounds import copy_app, run_app

from flwr_caesar.runner.processes import family
from flwr_caesar.runner.superlink import SuperLink

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-models.md"
ROWS = Path(__file__).with_suffix(".json")
STRATEGIES = ("fedavg", "topk", "caesar", "error-bounded")
ROLES = {
    "flwr-serverapp": "ServerApp",
    "flwr-clientapp": "ClientApp",
    "flower-superlink": "SuperLink",
    "flower-supernode": "SuperNode",
}
COLUMNS = (
    *("model", "strategy", "s, first", "s, later", "MB down", "MB up"),
    *("MB disk", "MB written", "CPU s, server", "CPU s, devices", "goals"),
)
MEGABYTE = 1e6
ROUNDS = 3
MOST_SERVER, MOST_DEVICE = 8, 6
BEFORE = """With 124 million elements the server took 15.3 models with `caesar` and
13.5 with `topk` before copies were taken out of it, and 10.4 with `caesar` after the
first of these changes (2026-11-27, the Xeon below). `error-bounded` remembers two
models of each device on both sides; with the memory before and after an upload at a
time it took 11.9 models on the server and 8.2 on a device."""


@dataclass(frozen=True)
class Case:
    """A model on some nodes."""

    model: str
    elements: float
    dtype: str = "float32"
    nodes: int = 2
    what: str = ""

    @property
    def name(self) -> str:
        """How it is called on the command line and in the table."""
        return self.model if self.dtype == "float32" else f"{self.model}-{self.dtype}"

    @property
    def nbytes(self) -> float:
        """Bytes of a model, in float32 whatever its type: so the server has it."""
        return 4e6 * self.elements


CASES = {
    case.name: case
    for case in (
        Case("lora", 3.146, what="LoRA, 192 tensors"),
        Case("many", 2.016, what="1,200 tensors"),
        Case("resnet18", 11.18, what="ResNet-18, 122 tensors"),
        Case("gpt2", 124.44, nodes=1, what="GPT-2, 148 tensors"),
        Case("gpt2", 124.44, "float16", 1, what="GPT-2, 148 tensors"),
        Case("gpt2", 124.44, "bfloat16", 1, what="GPT-2, 148 tensors"),
        Case("gpt2-medium", 354.8, nodes=1, what="GPT-2 medium, 292 tensors"),
    )
}


class Watch:
    """Watches what the processes of a SuperLink take, until it is left.

    Attributes
    ----------
    peaks : dict of str to int
        The largest high-water mark of each kind of process, in bytes.
    seconds : dict of str to dict of int to float
        CPU seconds of each process, by its kind and id.
    written : dict of int to int
        Bytes that each ClientApp had written to a disk, by its id, in the order in
        which they were started.
    """

    def __init__(self, marker: str) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, dict[int, float]] = {}
        self.written: dict[int, int] = {}
        self._marker = marker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            for process in family(-1, self._marker):
                with contextlib.suppress(OSError, ValueError):
                    self._look(process.pid, Path(f"/proc/{process.pid}"))

    def _look(self, pid: int, folder: Path) -> None:
        command = (folder / "cmdline").read_bytes().decode()
        role = next((r for name, r in ROLES.items() if name in command), None)
        if role is None:
            return
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak = int(line.split()[1]) * 1024
                self.peaks[role] = max(self.peaks.get(role, 0), peak)
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        self.seconds.setdefault(role, {})[pid] = seconds
        if role == "ClientApp":
            for line in (folder / "io").read_text().splitlines():
                if line.startswith("write_bytes"):
                    self.written[pid] = int(line.split()[1])


@contextlib.contextmanager
def processes(case: Case) -> Iterator[tuple[SuperLink, Path, Path, Watch]]:
    """Start a SuperLink and its nodes; each node keeps its state in a folder."""
    with (
        tempfile.TemporaryDirectory() as states,
        SuperLink(simulation=False) as link,
        Watch(f"FLWR_HOME={link.home}") as watched,
    ):
        app = copy_app(link)
        for i in range(case.nodes):
            folder = Path(states) / str(i)
            link.start_supernode(i, case.nodes, node_config=f"state-dir='{folder}'")
        yield link, app, Path(states), watched


def measure(case: Case, strategy: str) -> dict[str, Any]:
    """Return what a run on processes of its own took."""
    more = f'model="{case.model}" dtype="{case.dtype}" nodes={case.nodes}'
    with processes(case) as (link, app, states, watched):
        found = run_app(link, app, strategy, ROUNDS, more)
        disk = sum(
            os.path.getsize(os.path.join(folder, name))
            for folder, _, names in os.walk(states)
            for name in names
        )
    ways = {k: found[k] / case.nodes for k in found if k != "seconds"}
    seconds = {"first": found["seconds"][0]}
    seconds["later"] = statistics.median(found["seconds"][1:])
    cpu = {role: sum(each.values()) for role, each in watched.seconds.items()}
    # A ClientApp is a process for each message, and the first ones write a model whole.
    written = list(watched.written.values())[case.nodes :]
    return {
        **ways,
        **seconds,
        "disk": disk / case.nodes,
        "peaks": watched.peaks,
        "cpu": cpu,
        "written": statistics.median(written) if written else 0,
    }


def row(case: Case, strategy: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    cells = [f"{case.what}, {case.elements:.3g} M, {case.dtype}", strategy]
    cells += [f"{found['first']:.1f}", f"{found['later']:.1f}"]
    for way in ("down", "up"):
        first, last = (
            found[key] / MEGABYTE for key in (f"first_{way}", f"bytes_{way}")
        )
        cells.append(f"{first:.3g} / {last:.3g}")
    for role in ROLES.values():
        peak = found["peaks"].get(role, 0)
        cells.append(f"{peak / MEGABYTE:,.0f} ({peak / case.nbytes:.1f})")
    cells.append(f"{found['disk'] / MEGABYTE:,.3g}")
    cells.append(f"{found['written'] / MEGABYTE:,.3g}" if "written" in found else "–")
    for role in ("ServerApp", "ClientApp"):
        cpu = found.get("cpu", {}).get(role)
        cells.append(f"{cpu:.0f}" if cpu else "–")
    cells.append(goals(case, strategy, found))
    return "| " + " | ".join(cells) + " |"


def goals(case: Case, strategy: str, found: dict[str, Any]) -> str:
    """Return which goals a row of ours does not meet, of those that concern it."""
    if strategy == "fedavg":
        return "–"
    missed = []
    # Below some tens of megabytes the interpreter is most of what is resident.
    for role, most in (("ServerApp", MOST_SERVER), ("ClientApp", MOST_DEVICE)):
        models = found["peaks"].get(role, 0) / case.nbytes
        if case.elements > 100 and models > most:
            missed.append(f"{role} {models:.1f} of {most}")
    others = read_rows()
    plain = others.get(f"{case.name} fedavg")
    if plain and found["later"] > plain["later"]:
        missed.append(f"{found['later'] / plain['later']:.1f} × FedAvg's seconds")
    wide = others.get(f"{case.model} {strategy}")
    if wide and case.dtype != "float32":
        for key in ("first_down", "bytes_down", "bytes_up"):
            if found[key] > 1.01 * wide[key]:
                missed.append(f"{key} {found[key] / wide[key]:.2f} × float32's")
    met = "met" if plain else "met; seconds not compared"
    return "; ".join(missed) or met


def read_rows() -> dict[str, Any]:
    """Return what was measured, by case and strategy."""
    found: dict[str, Any] = json.loads(ROWS.read_text()) if ROWS.is_file() else {}
    return found


def told_by(rows: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return each command and machine, and the cases that were measured there."""
    found: dict[str, dict[str, None]] = {}
    for name in CASES:
        for strategy in STRATEGIES:
            if row := rows.get(f"{name} {strategy}"):
                found.setdefault(row["told"], {})[name] = None
    return [(told, list(names)) for told, names in found.items()]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--only", nargs="*", default=STRATEGIES, help="strategies")
    args = parser.parse_args()
    for name in args.cases or CASES:
        for strategy in args.only:
            found = measure(CASES[name], strategy)
            rows = read_rows() | {f"{name} {strategy}": found}
            told = describe("python benchmarks/large_models.py")
            rows[f"{name} {strategy}"] |= {"told": told, "load": os.getloadavg()[2]}
            ROWS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
            print(row(CASES[name], strategy, found), flush=True)
            TABLE.write_text(page())


def page() -> str:
    """Return the page, with what was measured so far."""
    rows = read_rows()
    lines = [
        row(case, strategy, rows[f"{name} {strategy}"])
        for name, case in CASES.items()
        for strategy in STRATEGIES
        if f"{name} {strategy}" in rows
    ]
    head = "| " + " | ".join((*COLUMNS[:6], *ROLES.values(), *COLUMNS[6:])) + " |"
    ruler = "| --- | --- |" + " --: |" * (head.count("|") - 4) + " --- |"
    table = "\n".join(lines)
    told = "\n\n".join(f"{', '.join(names)}: {by}" for by, names in told_by(rows))
    loads = [found["load"] for found in rows.values()]
    missing = [
        f"{name} {strategy}"
        for name, case in CASES.items()
        for strategy in STRATEGIES
        if f"{name} {strategy}" not in rows
        and (strategy, case.dtype) != ("fedavg", "bfloat16")
    ]
    return f"""# Large models, and many tensors

Through a real SuperLink and two SuperNodes on loopback (one of GPT-2);
devices add noise instead of training. Seconds of the first round and the
median of later ones, of {ROUNDS}; MB of a device, first round / last; the largest
resident set of each process, interpreter included, in MB, and in parentheses in models
of float32; MB that a device keeps on its disk, and that it writes to it in a later
round; CPU seconds of the whole run, of the ServerApp and of all ClientApps. It is
looked a few times a second, so what a process took in its last moments is missed.
`topk` is `TopK(FedAvg(), density=0.01)`, `caesar` `Caesar(FedAvg())`, `error-bounded`
`ErrorBounded(FedAvg())`. Flower's FedAvg knows no bfloat16.

Goals: at most {MOST_SERVER} models on the server and {MOST_DEVICE} on a device (told
from 100 million elements on: below, the interpreter is most of it), no later round
longer than FedAvg's, and in 16 bits no more bytes than in float32 (1 % is no miss).

{head}
{ruler}
{table}

The machine's load beside them was {min(loads):.0f} to {max(loads):.0f}: where that is
above the number of cores, seconds are those of a share of it. Not measured yet:
{", ".join(missing) or "nothing"}.

{BEFORE}

{told}
"""


if __name__ == "__main__":
    main()
