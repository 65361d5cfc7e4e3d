"""What a fleet costs on its links and machines: a lab of namespaces, measured.

Starts ``flwr-caesar deploy lab``'s server, gate and devices on shaped links, with TLS,
keys and tickets, and writes docs/benchmarks/fleet.md: bytes of a device while nothing
runs, bytes of a run by three counters, seconds from joining to the first round, memory.
Needs root, iproute2 and about five minutes.

    python benchmarks/fleet.py
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import describe

from flwr_caesar.deploy.lab import Lab
from flwr_caesar.deploy.network import Link, parse_rate, why_not
from flwr_caesar.deploy.server_folder import CONNECTION
from flwr_caesar.runner.superlink import executable

TABLE = Path(__file__).parent.parent / "docs" / "benchmarks" / "fleet.md"
MONTH_SECONDS = 30 * 86_400
# The gate writes down what it counted every five seconds.
SETTLE_SECONDS = 12.0


@dataclass(frozen=True)
class Counted:
    """Bytes of each device, down and up, at its link and at the gate."""

    links: list[tuple[int, int]]
    gate: list[tuple[int, int]]

    @classmethod
    def now(cls, lab: Lab) -> Counted:
        """Read both counters, once the gate has written its own down."""
        time.sleep(SETTLE_SECONDS)
        rows = json.loads(lab.on_server("fleet", "status", "--json"))
        gate = [(int(row["bytes_down"]), int(row["bytes_up"])) for row in rows]
        return cls(lab.carried(), gate)

    def since(self, before: Counted) -> Counted:
        """Return what was added."""
        return Counted(_less(self.links, before.links), _less(self.gate, before.gate))


def _less(
    after: list[tuple[int, int]], before: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    return [
        (down - first_down, up - first_up)
        for (down, up), (first_down, first_up) in zip(after, before, strict=True)
    ]


def memory(lab: Lab, name: str) -> dict[str, float]:
    """Return the MB of each process of a family, by what it runs; shared pages once."""
    found: dict[str, float] = {}
    for process in lab.members(name):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            command = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        except OSError:
            continue
        what = called(command)
        kilobytes = float(rollup.split("Pss:")[1].split()[0])
        found[what] = found.get(what, 0.0) + kilobytes / 1e3
    return found


def called(command: list[str]) -> str:
    """Return what a command line runs, such as ``flwr-caesar deploy gate``."""
    names = [Path(word).name for word in command]
    starts = (i for i, name in enumerate(names) if name.startswith(("flower-", "flwr")))
    start = next(starts, None)
    if start is None:
        return "other"
    words = command[start + 1 : start + 3] if names[start] == "flwr-caesar" else []
    return " ".join([names[start], *(word for word in words if word.isalpha())])


def join(lab: Lab, link: Link) -> None:
    """Let a device join and start."""
    ticket = lab.enrol("ticket", f"device-{link.number}").strip()
    joined = lab.join(link, ticket)
    if joined.returncode:
        raise SystemExit(joined.stderr)
    lab.start_node(link)


def run(lab: Lab, rounds: int) -> dict[str, Any]:
    """Run the reference app with Caesar; return its summary and when rounds ended."""
    folder = lab.home / f"run-{rounds}-{time.monotonic():.0f}"
    command = [
        *(executable("flwr-caesar"), "run", f"connection={CONNECTION}"),
        *("strategy=caesar", f"rounds={rounds}", "federation=local"),
        f"federation.num_supernodes={len(lab.links)}",
        *("data.partition.kind=iid", f"hydra.run.dir={folder}"),
    ]
    if lab.run_app(*command):
        raise SystemExit(lab.log("app"))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    with (folder / "devices.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "train"]
    summary["written"] = [int(row["bytes_written"]) / 1e6 for row in rows]
    summary["raw"] = int(rows[0]["raw_bytes_down"]) / 1e6
    return summary


def kilobytes(pairs: list[tuple[int, int]]) -> str:
    """Return the sums of both directions over all devices."""
    down, up = (sum(column) for column in zip(*pairs, strict=True))
    return f"{down / 1e3:.1f} | {up / 1e3:.1f}"


PAGE = """\
# A fleet, measured

{devices} devices, as `flwr-caesar deploy lab` makes them: each joined by a ticket, runs
`flwr-caesar node` in a network namespace behind a link of {rate} both ways, and
reaches the server through the gate, over TLS. All share the cores of one machine, so
times are upper bounds.

## While nothing runs

Over {idle_seconds:.0f} s, for a device and 30 days:

| counter | MB down | MB up | MB |
| --- | --: | --: | --: |
| link, all headers | {idle_links} |
| gate, HTTP | {idle_gate} |

Flower asks every 3 seconds whether there is work. On a metered link, `[metered]` in
`node.toml` keeps the device off it outside its windows.

## Three rounds of Caesar

The CNN on MNIST-5k, {accuracy:.1%} at the end; all devices together:

| counter | kB down | kB up |
| --- | --: | --: |
| our own, frames and arrays | {own} |
| the gate's, HTTP | {run_gate} |
| the links', less what they carry idle | {run_links} |
| the links', as they are, in {run_seconds:.0f} s | {run_links_all} |

What the links carry more than we count is the app's bundle, messages' metadata, the
signature of each request, TLS and TCP.

## From the ticket to the first round

| until | s |
| --- | --: |
| `flwr-caesar join` is done | {joined:.1f} |
| the device is online | {online:.1f} |
| the first round has ended | {first_round:.1f} |

## Written to the disk

What a device's training process has the kernel write in a round, state, frames and
Flower's files: {written} MB with a model of {raw:.2f} MB.
[state-wear.md](state-wear.md) has a model of 11 million parameters.

## Memory at rest

Proportional set size: a page that processes share counts in equal parts.

| where | process | MB |
| --- | --- | --: |
{memory}

{environment}
"""


def monthly(pairs: list[tuple[int, int]], seconds: float) -> str:
    """Return what a device carries in 30 days at this pace: down, up, both."""
    scale = MONTH_SECONDS / seconds / len(pairs) / 1e6
    down, up = (sum(column) * scale for column in zip(*pairs, strict=True))
    return f"{down:.0f} | {up:.0f} | {down + up:.0f}"


def measure(lab: Lab, idle_seconds: float) -> dict[str, Any]:
    """Return what the page says."""
    lab.start_server()
    for link in lab.links[:-1]:
        join(lab, link)
    lab.wait_online(len(lab.links) - 1)
    start = time.monotonic()
    join(lab, lab.links[-1])
    joined = time.monotonic() - start
    lab.wait_online(len(lab.links))
    online = time.monotonic() - start
    run(lab, 1)
    first_round = time.monotonic() - start

    before, began = Counted.now(lab), time.monotonic()
    time.sleep(idle_seconds)
    idle = Counted.now(lab).since(before)
    idle_seconds = time.monotonic() - began
    sizes = {"device": memory(lab, "node-0"), "server": memory(lab, "server")}

    before, began = Counted.now(lab), time.monotonic()
    summary = run(lab, 3)
    ran = Counted.now(lab).since(before)
    run_seconds = time.monotonic() - began
    rest = run_seconds / idle_seconds
    idle_in_run = [(int(down * rest), int(up * rest)) for down, up in idle.links]
    own = summary["bytes_down"], summary["bytes_up"]
    return {
        "devices": len(lab.links),
        "idle_seconds": idle_seconds,
        "idle_links": monthly(idle.links, idle_seconds),
        "idle_gate": monthly(idle.gate, idle_seconds),
        "accuracy": summary["accuracy"],
        "own": kilobytes([own]),
        "run_gate": kilobytes(ran.gate),
        "run_links": kilobytes(_less(ran.links, idle_in_run)),
        "run_links_all": kilobytes(ran.links),
        "run_seconds": run_seconds,
        "written": f"{min(summary['written']):.1f} to {max(summary['written']):.1f}",
        "raw": summary["raw"],
        "joined": joined,
        "online": online,
        "first_round": first_round,
        "memory": "\n".join(
            f"| {where} | `{what}` | {size:.0f} |"
            for where, processes in sizes.items()
            for what, size in sorted(processes.items())
        ),
    }


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--rate", default="2mbit")
    parser.add_argument("--idle", type=float, default=120.0, help="seconds")
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    with Lab([parse_rate(args.rate)] * args.devices) as lab:
        measured = measure(lab, args.idle)
    packages = ("flwr", "numpy", "torch", "uvicorn")
    environment = describe(f"python benchmarks/{Path(__file__).name}", packages)
    args.output.write_text(
        PAGE.format(**measured, rate=args.rate, environment=environment)
    )
    print(args.output.read_text())


if __name__ == "__main__":
    main()
