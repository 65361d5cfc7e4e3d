"""A device whose upload outlasts the round: real SuperNodes in network namespaces.

As in thin_links.py, with three devices, the uplink of one so thin that its upload takes
much longer than the rest of the round: how long rounds take that close at a deadline or
at a quorum, and what the thin device has kept. Writes docs/benchmarks/straggler.md.
Needs root, iproute2 and about three minutes.

    python benchmarks/straggler.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from environment import describe
from thin_links import Measured, laid_out, measure

from flwr_caesar.deploy.network import UPLINK, Link, ip
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id

TABLE = Path(__file__).parent.parent / "docs" / "benchmarks" / "straggler.md"
THIN = 2
CLOSES = {"deadline": "+strategy.deadline={deadline}", "quorum": "+strategy.quorum=0.6"}


def thin_out(link: Link, mbit: float) -> None:
    """Make a device's uplink slower than its downlink."""
    shape = ["rate", f"{mbit}mbit", "burst", "8kb", "latency", "500ms"]
    where = ["tc", "-n", link.namespace, "qdisc", "replace", "dev", UPLINK]
    ip(*where, "root", "tbf", *shape)


def uploads(folder: Path, state: Path) -> list[str]:
    """Count for each device the uploads that were applied, and those it holds."""
    counts = []
    with SqliteLedger(folder / "checkpoint") as ledger:
        head = ledger.head()
        assert head is not None
        for where in sorted((state / "flwr-caesar").iterdir()):
            with FolderStore(where) as store:
                device = store.load(head.lineage)
            if device is None:
                continue
            rows = ledger.devices([device_id(device.token)]).values()
            applied = {upload for row in rows for upload in row.applied}
            held = {upload.upload_id for upload in device.pending} - applied
            counts.append(f"{len(applied)} / {len(held)}")
    return counts


def table(name: str, run: Measured, counts: list[str]) -> list[str]:
    """Return a row for each round of a run."""
    lines, before = [], 0.0
    for row in run.rounds[1:]:
        devices = sorted(
            (each for each in run.devices if each["round"] == row["round"]),
            key=lambda each: each["link"],
        )
        trips = [
            each["dropped"] or f"{float(each['seconds_round_trip']):.1f}"
            for each in devices
        ]
        seconds, before = float(row["seconds"]) - before, float(row["seconds"])
        lines.append(
            f"| {name} | {row['round']} | {seconds:.1f} | {', '.join(trips)} "
            f"| {', '.join(counts) if row is run.rounds[-1] else ''} |"
        )
    return lines


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=16.0, help="of all links")
    parser.add_argument("--uplink", type=float, default=0.1, help="of the thin one")
    parser.add_argument("--deadline", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    lines = [
        "# A device whose upload outlasts the round",
        "",
        "Three real SuperNodes in network namespaces, on links of",
        f"{args.mbit:g} Mbit/s; `tc tbf` holds the last uplink to {args.uplink:g}",
        "Mbit/s. The CNN on MNIST-5k, 20 local steps, `topk` with 0.9 of the values:",
        "about 0.8 MB from each device. After the last round, for each device: uploads",
        "that were applied, and those it holds until it learns that they were not.",
        "",
        "| closes by | round | s of the round | s of each device "
        "| uploads applied / held |",
        "| --- | --: | --: | --- | --- |",
    ]
    prefix = f"fs{os.getpid()}"
    links = [Link(i, args.mbit, prefix) for i in range(3)]
    with laid_out(links, prefix) as (federation, home):
        thin_out(links[THIN], args.uplink)
        federation.start()
        for name, close in CLOSES.items():
            close = close.format(deadline=args.deadline)
            settings = [
                *("strategy=topk", "strategy.density=0.9", "strategy.values=float32"),
                *(f"federation.num_supernodes={len(links)}", f"rounds={args.rounds}"),
                *("federation=local", "data.partition.kind=iid", "train.steps=20"),
                close,
            ]
            run = measure(federation, settings, home / name, 0.0)
            counts = uploads(home / name, home / "state")
            lines += table(f"`{close}`", run, counts)
    lines += ["", describe("python benchmarks/straggler.py", ("flwr", "numpy"))]
    args.output.write_text("\n".join(lines) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
