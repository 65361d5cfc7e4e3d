"""One federation over two hosts: Flower's simulation on a Ray cluster of two machines.

The hosts are network namespaces joined by a veth pair. The second has a folder for
temporary files and a home of its own, empty at the start, so that nothing but the
network leads from one to the other but the folders in which Python and the app are
installed, which both have. Ray's head runs on the first, a worker node on the second,
with one core each. The same app runs on this cluster, and on a Ray of the first host
alone, and docs/benchmarks/ray-hosts.md gets who trained where, bytes and accuracy.
Needs root and iproute2, and some minutes.

    python benchmarks/ray_hosts.py
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from environment import describe
from namespaces import Processes

from flwr_caesar.deploy import network
from flwr_caesar.runner.superlink import executable, flower_environment

HERE = Path(__file__).parent
TABLE = HERE.parent / "docs" / "benchmarks" / "ray-hosts.md"
APP = HERE / "ray_hosts_app"
PREFIX = "fcray"
PORT = 6379
START_SECONDS = 180.0
RUN_SECONDS = 900.0
OBJECT_STORE = 200_000_000
MARKER = "FLWR_CAESAR_RAY_HOSTS"


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Parameters
    ----------
    placements : list of dict
        The host of each device, by its number, round by round.
    devices : list of dict
        Rows of ``devices.csv``.
    accuracy : float
        After the last round.
    """

    placements: list[dict[str, int]]
    devices: list[dict[str, str]]
    accuracy: float

    @property
    def moved(self) -> int:
        """How often a device trained elsewhere than in the round before."""
        pairs = zip(self.placements, self.placements[1:], strict=False)
        return sum(now[d] != before[d] for before, now in pairs for d in now)

    def bytes(self, way: str) -> list[int]:
        """Return the bytes of each round."""
        rounds = Counter[int]()
        for row in self.devices:
            rounds[int(row["round"])] += int(row[f"bytes_{way}"])
        return [rounds[number] for number in sorted(rounds)]


class Hosts(Processes):
    """Two namespaces, and the processes that this script starts there."""

    def __init__(self, link: network.Link, server: str, folder: Path) -> None:
        self.first, self.second = server, link.namespace
        self.addresses = link.addresses
        environment = {
            **flower_environment(),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            MARKER: str(folder),
        }
        super().__init__(folder, environment, MARKER)

    def start_cluster(self) -> None:
        """Start Ray on both, and wait until the first knows the second."""
        head, node = self.addresses
        common = (
            *("--num-cpus", "1", "--object-store-memory", str(OBJECT_STORE)),
            *("--disable-usage-stats", "--block"),
        )
        self.spawn(
            self.first,
            "head.log",
            *(executable("ray"), "start", "--head", "--include-dashboard", "false"),
            *("--node-ip-address", head, "--port", str(PORT)),
            *("--temp-dir", str(self.folder / "ray"), *common),
        )
        self._wait_for("head.log", "block")
        # What the second host has of its own: files for a while, and a home.
        private = f'mount -t tmpfs tmpfs "{tempfile.gettempdir()}" && exec "$0" "$@"'
        self.spawn(
            self.second,
            "node.log",
            *("env", f"HOME={tempfile.gettempdir()}"),
            *("unshare", "--mount", "sh", "-c", private),
            *(executable("ray"), "start", "--address", f"{head}:{PORT}"),
            *("--node-ip-address", node, *common),
        )
        self._wait_for("node.log", "block")

    def run(self, name: str, *settings: str) -> Run:
        """Run the app on the first host."""
        placements, folder = self.folder / f"{name}.json", self.folder / name
        child = self.spawn(
            self.first,
            f"{name}.log",
            *(
                executable("flwr-caesar"),
                "run",
                f"app={APP}",
                f"hydra.run.dir={folder}",
            ),
            *(f"run_config.placements={placements}", *settings),
        )
        if child.wait(timeout=RUN_SECONDS):
            raise SystemExit((self.folder / f"{name}.log").read_text())
        with (folder / "devices.csv").open() as lines:
            devices = list(csv.DictReader(lines))
        summary = json.loads((folder / "summary.json").read_text())
        return Run(json.loads(placements.read_text()), devices, summary["accuracy"])

    def _wait_for(self, log: str, text: str) -> None:
        until = time.monotonic() + START_SECONDS
        while text not in (self.folder / log).read_text(errors="replace"):
            if time.monotonic() > until or self.has_ended:
                raise SystemExit((self.folder / log).read_text(errors="replace"))
            time.sleep(0.3)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts, and take them down."""
    prefix = f"{PREFIX}{os.getpid()}"
    link, server = network.Link(0, 1000.0, prefix), f"{prefix}-server"
    with (
        tempfile.TemporaryDirectory(prefix="fc-") as folder,
        network.laid_out([link], server),
    ):
        hosts = Hosts(link, server, Path(folder))
        try:
            yield hosts
        finally:
            hosts.stop()


def row(name: str, run: Run) -> str:
    """Return a row of the table."""
    trained = Counter(host for one in run.placements for host in one.values())
    places = " + ".join(str(trained[host]) for host in sorted(trained))
    dropped = sum(bool(device["dropped"]) for device in run.devices)
    up, down = (f"{sum(run.bytes(way)) / 1e3:.1f}" for way in ("up", "down"))
    return (
        f"| {name} | {places} | {run.moved} | {dropped} | {up} | {down} "
        f"| {run.accuracy:.2%} |"
    )


def report(runs: dict[str, Run], command: str) -> str:
    """Return the page."""
    lines = [
        "# One federation on two hosts, measured",
        "",
        "Flower's simulation on a Ray cluster of two hosts, which are two network",
        "namespaces of one machine; the second has temporary files and a home of its",
        "own ([how](../running.md#a-federation-larger-than-one-machine)). The 2NN on",
        "MNIST-5k, `Caesar` with its defaults, every device in each round.",
        "",
        "| run | trained on the first + second host | moved to the other host "
        "| replies dropped | kB up | kB down | accuracy |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        *(row(name, run) for name, run in runs.items()),
        "",
        "Bytes down of each round, all devices: a device that had lost its state when",
        "it moved would be sent a whole model.",
        "",
        "| run | " + " | ".join(str(n + 1) for n in range(_rounds(runs))) + " |",
        "| --- |" + " --: |" * _rounds(runs),
        *(
            f"| {name} | " + " | ".join(f"{n:,}" for n in run.bytes("down")) + " |"
            for name, run in runs.items()
        ),
        "",
        describe(command, ("flwr", "ray", "numpy", "torch")),
    ]
    return "\n".join(lines) + "\n"


def _rounds(runs: dict[str, Run]) -> int:
    return max(len(run.placements) for run in runs.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args(arguments)
    reason = network.why_not()
    if reason is not None:
        raise SystemExit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    network.delete_abandoned(PREFIX)
    settings = (f"federation.num_supernodes={given.devices}", f"rounds={given.rounds}")
    runs = {}
    with two_hosts() as hosts:
        runs["one host"] = hosts.run("one", *settings)
        hosts.start_cluster()
        address = f"federation.ray_address={hosts.addresses[0]}:{PORT}"
        runs["two hosts"] = hosts.run("two", *settings, address)
    told = report(runs, f"python benchmarks/{Path(__file__).name}")
    TABLE.write_text(told)
    print(told)


if __name__ == "__main__":
    main()
