"""Cost of keeping state: a device's commit, and a round in the server's ledger.

A device's commit writes residual and pending upload of a model that it holds already;
it is compared to writing the same bytes over one file with one fsync, in pairs that
alternate in one process. The ledger knows a million devices; a round reads and updates
a thousand of them. The table is written to docs/benchmarks/state.md.

    python benchmarks/state.py
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from environment import describe

from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.ledger_api import DeviceRow, Head
from flwr_caesar.sync.state import DeviceState, Pending

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "state.md"
PARAMETERS = 11_000_000
LINEAGE = 7


def seconds(act: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def states(frame_bytes: int) -> Iterator[DeviceState]:
    """Yield what a device of a 62-tensor model keeps after one round and the next."""
    rng = np.random.default_rng(0)
    size = PARAMETERS // 62
    arrays = [
        {f"layer{n}": rng.standard_normal(size, np.float32) for n in range(62)}
        for _ in range(3)
    ]
    phase = 0
    while True:
        phase += 1
        upload = Pending(phase, (1, phase), rng.bytes(frame_bytes))
        yield DeviceState(
            token=bytes(16),
            lineage=LINEAGE,
            order=(1, phase),
            version=1,
            digest=bytes(8),
            model=arrays[0],
            residual=arrays[1 + phase % 2],
            pending=(upload,),
        )


def plain_write(path: Path, chunks: list[memoryview]) -> None:
    """Write bytes over a file and wait for the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for chunk in chunks:
            while chunk:
                chunk = chunk[os.write(fd, chunk) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def device_commit(folder: Path, frame_bytes: int, runs: int) -> tuple[float, ...]:
    """Return median seconds of a commit and of a plain write, and of their ratio."""
    pairs = []
    folder.mkdir()
    path = folder / "plain"
    with FolderStore(folder / "state") as store:
        source = states(frame_bytes)
        store.save(next(source))
        for run in range(runs + 2):
            state = next(source)
            chunks = [a.data.cast("B") for a in state.residual.values()]
            chunks.append(memoryview(state.pending[0].frame))
            steps = [
                lambda s=state: store.save(s),
                lambda p=path, c=chunks: plain_write(p, c),
            ]
            order = (0, 1) if run % 2 else (1, 0)
            taken = {which: seconds(steps[which]) for which in order}
            if run >= 2:
                pairs.append((taken[0], taken[1]))
    ours, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
    return ours, plain, statistics.median(a / b for a, b in pairs)


def ledger_round(folder: Path, devices: int, runs: int) -> tuple[float, float, float]:
    """Return median and largest seconds of a round of 1,000, and the ledger's bytes."""
    rng = random.Random(0)
    names = [f"{rng.getrandbits(128):032x}" for _ in range(devices)]
    nodes = [rng.getrandbits(64) for _ in range(devices)]
    applied = tuple(rng.getrandbits(64) for _ in range(16))
    with SqliteLedger(folder) as ledger:
        for start in range(0, devices, 100_000):
            part = slice(start, start + 100_000)
            rows = [DeviceRow(n, (1, bytes(8)), applied) for n in sorted(names[part])]
            where = dict(zip(nodes[part], names[part], strict=True))
            ledger.commit(Head(LINEAGE, 1, 1, (1, bytes(8))), rows, where)
    taken = []
    with SqliteLedger(folder) as ledger:
        for run in range(runs):
            sampled = rng.sample(nodes, 1000)
            taken.append(seconds(lambda s=sampled, r=run: one_round(ledger, s, r)))
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        (size,) = database.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
    return statistics.median(taken), max(taken), size


def one_round(ledger: SqliteLedger, nodes: list[int], phase: int) -> None:
    """Read the devices at some nodes, and write what a round changes of each."""
    rows = ledger.at_nodes(nodes)
    assert len(rows) == len(nodes)
    version = (phase + 2, phase.to_bytes(8, "little"))
    changed = [
        replace(
            row,
            held=version,
            applied=(*row.applied[1:], phase + 1),
            last=(1, phase + 1),
            uploads=row.uploads + 1,
        )
        for row in rows.values()
    ]
    where = {node: row.device for node, row in rows.items()}
    ledger.commit(Head(LINEAGE, 1, phase + 1, version), changed, where)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="pairs and rounds")
    parser.add_argument("--devices", type=int, default=1_000_000, help="in the ledger")
    parser.add_argument("--folder", help="on the disk to measure; default: temporary")
    args = parser.parse_args()
    lines = [
        "# Keeping state",
        "",
        f"A device commits residual ({PARAMETERS:,} float32 values) and pending",
        "upload; the model did not change. Plain: the same bytes written over the file",
        "that had the ones before (`O_TRUNC`), and one fsync. Medians of",
        f"{args.runs} pairs in turn; the ratio is the median of the pairs' ratios.",
        "",
        "| pending upload | commit | plain write + fsync | ratio |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        for share in (0.1, 1.0):
            frame = int(4 * PARAMETERS * share)
            ours, plain, ratio = device_commit(folder / str(share), frame, args.runs)
            lines.append(
                f"| {frame / 1e6:.1f} MB | {ours * 1e3:.0f} ms | {plain * 1e3:.0f} ms "
                f"| {ratio:.2f} |"
            )
            print(lines[-1], flush=True)
        middle, longest, size = ledger_round(folder / "l", args.devices, args.runs)
    lines += [
        "",
        f"The ledger knows {args.devices:,} devices ({size / 1e6:.0f} MB). One round:",
        "read 1,000 devices by node and update them in one durable transaction.",
        "",
        "| median | longest |",
        "| --- | --- |",
        f"| {middle * 1e3:.0f} ms | {longest * 1e3:.0f} ms |",
        "",
        describe("python benchmarks/state.py", ("numpy",))
        + f" SQLite {sqlite3.sqlite_version}.",
    ]
    print(lines[-3], flush=True)
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
