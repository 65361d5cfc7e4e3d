"""What a device writes to its disk in a round, and what that costs its processor.

Real rounds in one process, training and evaluation, of a model of 11 million parameters
in 62 tensors. The first device keeps its state in a folder, the others and the server
in memory, so what the process writes (``write_bytes`` of ``/proc/self/io``) is that
device's. Local training is a random step of 1 % of the weights' deviation, half of
which all devices share.

    python benchmarks/state_wear.py
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar, TopK

PARAMETERS = 11_000_000
TENSORS = 62
DEVIATION = 0.02
STRATEGIES = {
    "caesar": lambda inner: Caesar(inner),
    "topk": lambda inner: TopK(inner),
}


class Grid(InlineGrid):
    """Notes the bytes and the processor's seconds of the first device's messages."""

    def __init__(self, app: ClientApp, devices: int, folder: Path) -> None:
        super().__init__(app, devices)
        context = self.contexts[1]
        context.node_config["state-dir"] = str(folder / "state")
        self.spent: list[tuple[str, int, float]] = []

    def _reply(self, message_id: str, message: Message) -> Message:
        before, start = written(), time.process_time()
        reply = super()._reply(message_id, message)
        if message.metadata.dst_node_id == 1:
            if reply.has_error():
                raise RuntimeError(reply.error.reason)
            seconds = time.process_time() - start
            kind = message.metadata.message_type
            self.spent.append((kind, written() - before, seconds))
        return reply


def written() -> int:
    """Return the bytes that this process had written to a disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not count what is written")


def model() -> ArrayRecord:
    """Return a model of many tensors."""
    rng = np.random.default_rng(0)
    size = PARAMETERS // TENSORS
    return ArrayRecord(
        {
            f"layer{n}": Array(
                (DEVIATION * rng.standard_normal(size)).astype(np.float32)
            )
            for n in range(TENSORS)
        }
    )


def make_app() -> ClientApp:
    """Return an app that walks at random."""
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        number = int(msg.content["config"]["server-round"])
        shared = np.random.default_rng(number)
        own = np.random.default_rng((number, context.node_id))
        step = np.float32(0.01 * DEVIATION * 0.5**0.5)
        arrays = {}
        for name, array in msg.content["arrays"].items():
            before = array.numpy()
            walk = shared.standard_normal(before.size, np.float32)
            walk += own.standard_normal(before.size, np.float32)
            arrays[name] = Array(before + step * walk.reshape(before.shape))
        metrics = MetricRecord({"num-examples": 100, "loss": 1.0})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 100, "loss": 1.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def measure(name: str, devices: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return what the first device spent in each round but the first."""
    random.seed(0)
    grid = Grid(make_app(), devices, folder)
    STRATEGIES[name](FedAvg()).start(grid, model(), num_rounds=rounds)
    pairs = list(zip(grid.spent[::2], grid.spent[1::2], strict=True))[1:]
    return {
        "written": [train[1] + test[1] for train, test in pairs],
        "seconds": [train[2] + test[2] for train, test in pairs],
    }


def row(name: str, devices: int, found: dict[str, list[float]]) -> str:
    """Return a line of the table."""
    written = [count / 1e6 for count in found["written"]]
    return (
        f"| {name} | {devices} | {statistics.fmean(written):.1f} | "
        f"{statistics.median(written):.1f} | {min(written):.1f} | {max(written):.1f} | "
        f"{statistics.median(found['seconds']):.2f} |"
    )


def main() -> None:
    """Measure in processes of their own and print the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6, help="the first is left out")
    parser.add_argument("--folder", help="on the disk to measure; default: temporary")
    parser.add_argument("--one", choices=STRATEGIES, help="only this one, as JSON")
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            found = measure(args.one, args.devices, args.rounds, Path(name))
        print("\n" + json.dumps(found))
        return
    for name in STRATEGIES:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(row(name, args.devices, found), flush=True)
    print(describe("python benchmarks/state_wear.py"))


if __name__ == "__main__":
    main()
