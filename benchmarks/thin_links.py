"""Waiting and bytes on links of unequal speed: real SuperNodes in network namespaces.

Makes a namespace for the server and one for each device, joined by veth pairs whose two
ends are shaped with ``tc tbf``, and starts a SuperLink and a SuperNode in each. Then it
runs the reference app in turn with FedAvg, with Caesar as published at one fixed batch
size, and with Caesar's batch sizing, and writes docs/benchmarks/thin-links.md. Nothing
leaves the namespaces; at the end, on an error or on Ctrl-C, they are deleted and every
process is ended. Needs root, iproute2 and about ten minutes.

    python benchmarks/thin_links.py
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import describe
from namespaces import Processes

from flwr_caesar.deploy import network
from flwr_caesar.deploy.network import SERVER, Link, carried, why_not
from flwr_caesar.plan import Estimates
from flwr_caesar.runner.superlink import executable, flower_environment
from flwr_caesar.strategies.caesar_plan import POLLING_SECONDS

TABLE = Path(__file__).parent.parent / "docs" / "benchmarks" / "thin-links.md"
MBITS = (0.5, 1.0, 4.0, 16.0)
CONNECTION = "thin-links"
PORT = 8000
START_SECONDS = 120.0
RUN_SECONDS = 900.0
RUNS = {
    "FedAvg": ["strategy=fedavg"],
    "Caesar (paper), one batch": ["strategy=caesar_paper", "strategy.min_batch={max}"],
    "Caesar (paper), sized": ["strategy=caesar_paper", "strategy.min_batch=8"],
}


class Federation(Processes):
    """A SuperLink and a SuperNode in each device's namespace.

    Parameters
    ----------
    server : str
        The server's namespace.
    links : list of Link
        Joined to it.
    home : Path
        Flower's home and all logs.
    """

    def __init__(self, server: str, links: list[Link], home: Path) -> None:
        self.server, self.links = server, links
        environment = {
            **flower_environment(),
            "FLWR_HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "OMP_NUM_THREADS": "1",
        }
        super().__init__(home, environment, "FLWR_HOME")
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{SERVER}:{PORT}"\ninsecure = true\n'
        )

    def start(self) -> None:
        """Start all of it and wait until the SuperLink knows every device."""
        self.spawn(
            self.server,
            "superlink.log",
            *(executable("flower-superlink"), "--insecure"),
            "--disable-runtime-dependency-installation",
            *("--host", SERVER, "--port", str(PORT)),
        )
        self._wait("superlink.log", "running on")
        for link in self.links:
            config = f"partition-id={link.number} num-partitions={len(self.links)}"
            self.spawn(
                link.namespace,
                f"supernode-{link.number}.log",
                *(executable("flower-supernode"), "--insecure"),
                *("--superlink", f"{SERVER}:{PORT}", "--port", "9400"),
                *("--node-config", config),
            )
        for link in self.links:
            self.node_id(link)

    def node_id(self, link: Link) -> int:
        """Return Flower's id of a device, once it is connected."""
        log = f"supernode-{link.number}.log"
        return int(self._wait(log, r"SuperNode ID: (\d+)").group(1))

    def counters(self) -> dict[int, tuple[int, int]]:
        """Return bytes down and up on each link, by its number, headers included."""
        return {link.number: carried(link, self.server) for link in self.links}

    def _wait(self, log: str, pattern: str) -> re.Match[str]:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if (self.folder / log).is_file():
                text = (self.folder / log).read_text(errors="replace")
                found = re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", text))
                if found:
                    return found
            time.sleep(0.2)
        raise SystemExit(f"no {pattern!r} in {START_SECONDS:.0f} s:\n{text[-2000:]}")


@dataclass(frozen=True)
class Measured:
    """What one run's folder and the links say."""

    rounds: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    wire: dict[int, tuple[int, int]]
    idle: float
    accuracy: float


def measure(
    federation: Federation, settings: list[str], folder: Path, idle: float
) -> Measured:
    """Run the reference app once.

    Parameters
    ----------
    idle : float
        Bytes a second that all links carry when nothing runs.
    """
    before, start = federation.counters(), time.monotonic()
    command = [executable("flwr-caesar"), "run", f"connection={CONNECTION}"]
    log = f"{folder.name}.log"
    settings = [*settings, f"hydra.run.dir={folder}"]
    child = federation.spawn(federation.server, log, *command, *settings)
    try:
        code = child.wait(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        code = -1
    if code:
        raise SystemExit(f"the run failed:\n{(federation.folder / log).read_text()}")
    seconds, after = time.monotonic() - start, federation.counters()
    number = {federation.node_id(link): link.number for link in federation.links}
    devices = [row for row in read(folder / "devices.csv") if row["phase"] == "train"]
    for row in devices:
        row["link"] = number[int(row["node_id"])]
    return Measured(
        read(folder / "rounds.csv"),
        devices,
        {n: (after[n][0] - b[0], after[n][1] - b[1]) for n, b in before.items()},
        idle * seconds,
        json.loads((folder / "summary.json").read_text())["accuracy"],
    )


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file."""
    with file.open() as lines:
        return list(csv.DictReader(lines))


def learnt(measured: Measured, *, skip: int) -> list[dict[str, Any]]:
    """Return the device rows after the first `skip` rounds."""
    return [row for row in measured.devices if int(row["round"]) > skip]


def mean(rows: list[dict[str, Any]], key: str) -> float:
    """Return the mean of a column."""
    return statistics.fmean(float(row[key]) for row in rows)


def by_round(rows: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Group device rows by their round, in the order of the links."""
    rounds: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (int(row["round"]), row["link"])):
        rounds.setdefault(int(row["round"]), []).append(row)
    return rounds


def longest(rows: list[dict[str, Any]]) -> float:
    """Return the mean over rounds of the longest round trip."""
    return statistics.fmean(
        max(float(row["seconds_round_trip"]) for row in group)
        for group in by_round(rows).values()
    )


def tables(results: dict[str, Measured], links: list[Link], skip: int) -> list[str]:
    """Return the tables."""
    lines = [
        "| run | mean waiting, s | longest waiting, s | s a round | MB down | MB up "
        "| on the links, of counted | accuracy |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, run in results.items():
        rows = learnt(run, skip=min(skip, len(by_round(run.devices)) - 1))
        down = sum(int(row["bytes_down"]) for row in run.devices)
        up = sum(int(row["bytes_up"]) for row in run.devices)
        wire = sum(map(sum, run.wire.values())) - run.idle
        lines.append(
            f"| {name} | {mean(rows, 'waiting'):.1f} "
            f"| {max(float(row['waiting']) for row in rows):.1f} "
            f"| {longest(rows):.1f} | {down / 1e6:.2f} | {up / 1e6:.2f} "
            f"| {wire / (down + up):.3f} | {run.accuracy:.1%} |"
        )
    speeds = ", ".join(f"{link.mbit:g}" for link in links)
    lines += [
        "",
        f"Round by round; in a cell the devices at {speeds} Mbit/s in this order:",
        "",
        "| run | round | batch | waiting, s | round trip, s | training, s | start, s "
        "| kB down | kB up |",
        "| --- | --: | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in results.items():
        for number, rows in by_round(run.devices).items():
            cells = [" ".join(row["batch_size"] for row in rows)]
            for key in ("waiting", "round_trip", "train", "start"):
                column = key if key == "waiting" else f"seconds_{key}"
                cells.append(" ".join(f"{float(row[column]):.1f}" for row in rows))
            for key in ("bytes_down", "bytes_up"):
                cells.append(" ".join(f"{int(row[key]) / 1e3:.0f}" for row in rows))
            lines.append(f"| {name} | {number} | " + " | ".join(cells) + " |")
    return lines + estimates(results, links)


def estimates(results: dict[str, Measured], links: list[Link]) -> list[str]:
    """Return a table of what the server took the links for after the last round."""
    lines = [
        "",
        "What the server takes the links for after the last round: the rate, and the",
        "seconds of a round that are neither transfer nor work.",
        "",
        "| run | Mbit/s | estimated | overhead, s |",
        "| --- | --: | --: | --: |",
    ]
    for name, run in results.items():
        if name == "FedAvg":
            continue  # its devices report nothing
        known = Estimates()
        for rows in by_round(run.devices).values():
            work = ("train", "encode", "decode")
            known.observe_transfer(
                [row["link"] for row in rows],
                bytes_down=[int(row["bytes_down"]) for row in rows],
                bytes_up=[int(row["bytes_up"]) for row in rows],
                seconds=[
                    float(row["seconds_round_trip"])
                    - sum(float(row[f"seconds_{what}"]) for what in work)
                    for row in rows
                ],
                started=[float(row["seconds_start"]) for row in rows],
                polling=POLLING_SECONDS,
            )
        for link in links:
            rate = known.up_bytes_per_second.predict([link.number])[0] * 8e-6
            idle = known.overhead_seconds.predict([link.number])[0]
            lines.append(f"| {name} | {link.mbit:g} | {rate:.2f} | {idle:.1f} |")
    return lines


def report(results: dict[str, Measured], links: list[Link], args: Any) -> str:
    """Return the page."""
    speeds = ", ".join(f"{link.mbit:g}" for link in links)
    lines = [
        "# Thin links, measured",
        "",
        f"{len(links)} real SuperNodes, each in a network namespace of its own behind",
        f"a veth pair that `tc tbf` holds to {speeds} Mbit/s in both directions. The",
        f"CNN on MNIST-5k, {args.steps} local steps at batch sizes up to {args.batch}.",
        f"Means leave out the first {args.skip} rounds, in which estimates are learnt",
        f"(of FedAvg's {args.fedavg_rounds} at least the last is taken);",
        "bytes are over all rounds. Waiting is measured: from the reply of a",
        "device to the last one. Bytes on the links are the counters of the veth",
        "interfaces, less what they carry when idle; they include TCP, HTTP, the app's",
        "bundle, and messages' metadata.",
        "",
        *tables(results, links, args.skip),
        "",
        "All processes share the cores of one machine: devices that train at once slow",
        "each other down. Every message starts a process; `start` is what that took by",
        "the device's own report.",
        "",
        "Round trips are what the ServerApp sees. When a reply is announced, Flower's",
        "Grid waits for its arrays and asks for them again after 1, 2, 4 and 8 s, so",
        "a reply is seen up to 10 s after the end of its upload; overheads contain",
        "that.",
        "",
        describe(
            f"python benchmarks/{Path(__file__).name}", ("flwr", "numpy", "torch")
        ),
    ]
    return "\n".join(lines) + "\n"


@contextmanager
def laid_out(links: list[Link], prefix: str) -> Iterator[tuple[Federation, Path]]:
    """Make the namespaces and links of a federation, which is not started yet.

    Parameters
    ----------
    links : list of Link
        One for each device.
    prefix : str
        Of the names of namespaces.

    Yields
    ------
    tuple of Federation and Path
        The federation, and a folder for what it leaves; both are gone at the end.
    """
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        server = f"{prefix}-server"
        stack.enter_context(network.laid_out(links, server))
        federation = Federation(server, links, home)
        stack.callback(federation.stop)
        yield federation, home


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, nargs="+", default=MBITS)
    parser.add_argument("--rounds", type=int, default=5, help="of Caesar")
    parser.add_argument("--fedavg-rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800, help="local steps")
    parser.add_argument("--batch", type=int, default=128, help="largest batch size")
    parser.add_argument("--skip", type=int, default=2, help="rounds left out of means")
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    prefix = f"fc{os.getpid()}"
    links = [Link(i, mbit, prefix) for i, mbit in enumerate(args.mbit)]
    results = {}
    with laid_out(links, prefix) as (federation, home):
        federation.start()
        first = federation.counters()
        time.sleep(10)
        last = federation.counters()
        idle = sum(sum(last[n]) - sum(first[n]) for n in first) / 10
        print(f"{len(links)} devices; idle links carry {idle:.0f} bytes a second")
        for name, settings in RUNS.items():
            rounds = args.fedavg_rounds if name == "FedAvg" else args.rounds
            settings = [
                *(each.format(max=args.batch) for each in settings),
                *(f"federation.num_supernodes={len(links)}", f"rounds={rounds}"),
                *("federation=local", "data.partition.kind=iid"),
                *(f"data.batch_size={args.batch}", f"train.steps={args.steps}"),
            ]
            folder = home / re.sub(r"\W+", "-", name.lower())
            results[name] = measure(federation, settings, folder, idle)
            print(f"{name}: {results[name].accuracy:.1%}", flush=True)
    args.output.write_text(report(results, links, args))
    print(args.output.read_text())


if __name__ == "__main__":
    main()
