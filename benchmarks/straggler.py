"""A device whose upload outlasts the round: real SuperNodes in network namespaces.

As in thin_links.py, with three devices, the uplink of one so thin that its upload takes
much longer than the rest of the round. Prints a table: how long rounds take that close
at a deadline or at a quorum, and what the thin device has kept. Needs root, iproute2
and about five minutes.

    python benchmarks/straggler.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from thin_links import SERVER, UPLINK, Federation, Link, ip, join, measure, namespace

from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id

THIN = 2
CLOSES = {"deadline": "+strategy.deadline={deadline}", "quorum": "+strategy.quorum=0.6"}


def thin_out(link: Link, mbit: float) -> None:
    """Make a device's uplink slower than its downlink."""
    shape = ["rate", f"{mbit}mbit", "burst", "8kb", "latency", "500ms"]
    where = ["tc", "-n", link.namespace, "qdisc", "replace", "dev", UPLINK]
    ip(*where, "root", "tbf", *shape)


def kept(folder: Path, state: Path) -> list[str]:
    """Say of each device how often it was counted, and what it holds back."""
    lines = []
    with SqliteLedger(folder / "checkpoint") as ledger:
        head = ledger.head()
        assert head is not None
        for where in sorted((state / "flwr-caesar").iterdir()):
            with FolderStore(where) as store:
                device = store.load(head.lineage)
            if device is None:
                continue
            row = ledger.devices([device_id(device.token)])
            applied = {upload for each in row.values() for upload in each.applied}
            held = [u for u in device.pending if u.upload_id not in applied]
            lines.append(f"{len(applied)} uploads applied, {len(held)} held")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=16.0, help="of all links")
    parser.add_argument("--uplink", type=float, default=0.1, help="of the thin one")
    parser.add_argument("--deadline", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    prefix = f"fs{os.getpid()}"
    links = [Link(i, args.mbit, prefix) for i in range(3)]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fs-")))
        server = stack.enter_context(namespace(f"{prefix}-server"))
        ip("ip", "-n", server, "addr", "add", f"{SERVER}/32", "dev", "lo")
        for link in links:
            stack.enter_context(namespace(link.namespace))
            join(server, link)
        thin_out(links[THIN], args.uplink)
        federation = Federation(server, links, home)
        stack.callback(federation.stop)
        federation.start()
        print("| closes by | round | s of the round | s of each device | not applied |")
        print("| --- | --: | --: | --- | --- |")
        for name, close in CLOSES.items():
            settings = [
                *("strategy=topk", "strategy.density=0.9", "strategy.values=float32"),
                *(f"federation.num_supernodes={len(links)}", f"rounds={args.rounds}"),
                *("federation=local", "data.partition.kind=iid", "train.steps=20"),
                close.format(deadline=args.deadline),
            ]
            folder = home / name
            start = time.monotonic()
            run = measure(federation, settings, folder, 0.0)
            whole = time.monotonic() - start
            before = 0.0
            for row in run.rounds[1:]:
                devices = sorted(
                    (each for each in run.devices if each["round"] == row["round"]),
                    key=lambda each: each["link"],
                )
                trips = [f"{float(d['seconds_round_trip']):.1f}" for d in devices]
                late = [f"{d['link']}: {d['dropped']}" for d in devices if d["dropped"]]
                seconds, before = float(row["seconds"]) - before, float(row["seconds"])
                print(
                    f"| {name} | {row['round']} | {seconds:.1f} | {' '.join(trips)} "
                    f"| {'; '.join(late)} |",
                    flush=True,
                )
            print(f"the run took {whole:.1f} s; {kept(folder, home / 'state')}")


if __name__ == "__main__":
    main()
