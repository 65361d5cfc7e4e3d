"""What a server of GPT-2's size spends on a reply and a round, and writes to its disk.

As `server.py`, with 124 million elements and the C kernel: Caesar's rounds with one
reply and with two, without a checkpoint, and with one reply and a checkpoint, whose
bytes are `write_bytes` of ``/proc/self/io``. Needs 8 GB. Writes
docs/benchmarks/large-server.md.

    python benchmarks/large_server.py
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from environment import describe
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from models import gpt2_arrays
from server import UploadingGrid

from flwr_caesar.codec.published.publication import PointHistory
from flwr_caesar.strategies import Caesar
from flwr_caesar.transport import arrays_to_record

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-server.md"
ROUNDS = 3


def written() -> int:
    """Return the bytes that this process had written to a disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not count what is written")


def rounds(num_replies: int, checkpoint: str | None) -> list[dict[str, float]]:
    """Return what each round but the first took."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    model = gpt2_arrays()
    grid = UploadingGrid(num_replies, model)
    initial = arrays_to_record(model)
    del model
    making: list[float] = []
    ends: list[dict[str, float]] = []

    def note(_: object) -> None:
        now = {
            "cpu": time.process_time() - grid.seconds,
            "making": sum(making),
            "written": float(written()),
        }
        ends.append(now)

    frame = PointHistory._encode

    def timed(self: PointHistory, base: bytes | None) -> bytes:
        start = time.process_time()
        made = frame(self, base)
        making.append(time.process_time() - start)
        return made

    PointHistory._encode = timed  # type: ignore[method-assign]
    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1),
        checkpoint=checkpoint,
        on_record=note,
    )
    strategy.start(grid, initial, num_rounds=ROUNDS)
    for record in strategy.history:
        if record.dropped:
            raise SystemExit(f"replies were dropped: {record.dropped}")
    return [{key: b[key] - a[key] for key in b} for a, b in pairwise(ends)]


def measure(num_replies: int, *, checkpoint: bool) -> dict[str, float]:
    """Return the least that a round takes, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(num_replies)]
        command += ["--checkpoint", folder] if checkpoint else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    print(num_replies, checkpoint, found, flush=True)
    return {key: min(each[key] for each in found) for key in found[0]}


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(rounds(args.one, args.checkpoint)))
        return
    one, two = (measure(count, checkpoint=False) for count in (1, 2))
    kept = measure(1, checkpoint=True)
    reply = two["cpu"] - one["cpu"]
    beside = one["cpu"] - reply
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    TABLE.write_text(f"""# What a server of GPT-2's size spends

Training rounds of `Caesar(FedAvg())` with GPT-2's 148 tensors (124 million elements) in
one process with the C kernel, of one reply and of two; CPU seconds of the least of
{ROUNDS - 1} rounds after the first, without those in which the replies are made.

| | |
| --- | --: |
| CPU s a reply | {reply:.1f} |
| CPU s a round beside replies | {beside:.1f} |
| of these, making the frame of a change | {one["making"]:.1f} |
| CPU s a round of one reply with a checkpoint | {kept["cpu"]:.1f} |
| MB a round to the server's disk with a checkpoint | {kept["written"] / 1e6:,.0f} |

Goals: 1 s a reply, 10 s a round. Replies are decoded one at a time at this size, as
several would take more memory than the 512 MB that there are for them.

## Frames are made before any is sent

All devices that hold the same model are sent one frame, which is made once: in most
rounds one or two frames are made in all. Flower's `push_messages` could be called for
some devices while the frame for others is made. It would not end a round sooner: the
round waits for the devices whose frame is made last, and these are sent theirs at the
same moment either way. So it is not done.

Load of the machine at the end, its own share included: {load}.

{describe("python benchmarks/large_server.py")}
""")
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
