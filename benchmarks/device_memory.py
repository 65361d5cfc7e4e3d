"""Peak memory of a device's process, in multiples of its model, for each strategy.

A server trains with one device. As on a SuperNode, a process of its own handles each
message: it reads the message's arrays, loads the state from the device's folder, runs
the mod and an app that adds noise to the model tensor by tensor, and writes the reply.
What is measured is the kernel's high-water mark of the resident set from the moment the
message is read, less what was resident then: interpreter, Flower and numpy. The app in
numpy holds the model it was given and the one it returns, and nothing else; a plain
Flower device with that app is the first row. Writes docs/benchmarks/device-memory.md.

    python benchmarks/device_memory.py
"""

from __future__ import annotations

import argparse
import logging
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.task_identity import TaskIdentity
from models import resnet18_arrays

from flwr_caesar.clients import compression_mod
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.transport import arrays_to_record

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "device-memory.md"
ROUNDS = 3
MEGABYTE = 1e6
# What is left out of a ResNet-18 for the small model.
LARGE = ("layer4.1", "layer4.0.conv1")
RECORDS = {"ConfigRecord": ConfigRecord, "MetricRecord": MetricRecord}


def model_of(name: str) -> dict[str, Any]:
    """Return the arrays of about 45 or 20 MB."""
    arrays = resnet18_arrays()
    if name == "45":
        return arrays
    return {k: v for k, v in arrays.items() if not k.startswith(LARGE)}


def strategies() -> dict[str, Callable[[FedAvg], Strategy]]:
    """Return how each strategy is built; by name, in the order of the table."""
    from flwr_caesar import strategies as ours

    return {
        "plain Flower": lambda inner: inner,
        "Uncompressed": lambda inner: ours.Uncompressed(inner),
        "TopK": lambda inner: ours.TopK(inner),
        "Caesar": lambda inner: ours.Caesar(inner),
        "ErrorBounded": lambda inner: ours.ErrorBounded(inner),
        "CorrelationAware": lambda inner: ours.CorrelationAware(inner),
        "MagnitudePruning": lambda inner: ours.MagnitudePruning(inner),
        "FedComLoc": lambda inner: ours.FedComLoc(inner, lr=0.05),
    }


def write_content(content: RecordDict, folder: Path) -> None:
    """Write a content, each array to a file of its own."""
    rows: dict[str, Any] = {}
    for name, record in content.items():
        if not isinstance(record, ArrayRecord):
            rows[name] = type(record).__name__, record.deflate()
            continue
        arrays = []
        for key, array in record.items():
            path = folder / f"{len(rows)}-{len(arrays)}"
            path.write_bytes(array.data)
            arrays.append((key, array.dtype, array.shape, array.stype, path))
        rows[name] = "ArrayRecord", arrays
    (folder / "content").write_bytes(pickle.dumps(rows))


def read_content(folder: Path) -> RecordDict:
    """Read what `write_content` wrote, holding each array's bytes once."""
    records: dict[str, Any] = {}
    for name, (kind, body) in pickle.loads((folder / "content").read_bytes()).items():
        if kind != "ArrayRecord":
            records[name] = RECORDS[kind].inflate(body)
            continue
        record = ArrayRecord()
        for key, dtype, shape, stype, path in body:
            record[key] = Array(dtype, shape, stype, path.read_bytes())
        records[name] = record
    return RecordDict(records)


class ProcessGrid(InlineGrid):
    """Handles each message in a process of its own, and notes how large that grew."""

    def __init__(self, folder: Path, *, plain: bool) -> None:
        super().__init__(ClientApp(), 1)
        self.folder = folder
        self.plain = plain
        self.peaks: list[tuple[str, float]] = []

    def _reply(self, message_id: str, message: Message) -> Message:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            request, answer = Path(name) / "request", Path(name) / "answer"
            request.mkdir()
            answer.mkdir()
            write_content(message.content, request)
            kind = message.metadata.message_type
            command = [sys.executable, __file__, "--request", str(request)]
            command += ["--answer", str(answer), "--kind", kind]
            command += ["--state", "" if self.plain else str(self.folder / "state")]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            self.peaks.append((kind, float(done.stdout.split()[-1])))
            reply = Message(read_content(answer), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        reply.metadata.__dict__["_reply_to_message_id"] = message_id
        return reply


def noisy_app(*, plain: bool) -> ClientApp:
    """Return an app that holds the model twice at most: as given, and as returned."""
    app = ClientApp(mods=[] if plain else [compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        rng = np.random.default_rng(0)
        trained = ArrayRecord()
        # Of FedComLoc there is a second one, of control variates.
        key = next(iter(msg.content.array_records))
        for name, array in msg.content.array_records[key].items():
            values = array.numpy()
            if values.dtype == np.float32:
                noise = rng.standard_normal(values.shape, np.float32)
                noise *= np.float32(1e-3)
                values += noise
            trained[name] = Array(values)
        metrics = MetricRecord({"num-examples": 10, "loss": 1.0})
        return Message(RecordDict({key: trained, "metrics": metrics}), reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10, "accuracy": 0.5})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return app


def resident(what: str) -> int:
    """Return bytes that the kernel says are resident, now or at most."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith(what))
    return int(line.split()[1]) * 1024


def handle(given: argparse.Namespace) -> None:
    """Be a device's process: one message in, its reply out, and the peak printed."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    app = noisy_app(plain=not given.state)
    context = Context(1, 1, {"state-dir": given.state}, RecordDict(), {})
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew
    message = Message(
        read_content(given.request), dst_node_id=1, message_type=given.kind
    )
    reply = app(message, context)
    write_content(reply.content, given.answer)
    print(resident("VmHWM") - before)


def measure(name: str, size: str) -> tuple[float, float]:
    """Return the peak of training and of evaluating, in multiples of the model."""
    model = model_of(size)
    nbytes = sum(array.nbytes for array in model.values())
    inner = FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
    with tempfile.TemporaryDirectory() as folder:
        grid = ProcessGrid(Path(folder), plain=name == "plain Flower")
        strategy = strategies()[name](inner)
        strategy.start(grid, arrays_to_record(model), num_rounds=ROUNDS)
    for record in getattr(strategy, "history", []):
        if record.dropped:
            raise SystemExit(f"{name}: {record.dropped}")
    peaks = [
        max(peak for kind, peak in grid.peaks if kind == wanted) / nbytes
        for wanted in ("train", "evaluate")
    ]
    peaks_of = (f"{peak:6.2f}" for peak in peaks)
    print(f"{name:18} {nbytes / MEGABYTE:5.1f} MB", *peaks_of, flush=True)
    return peaks[0], peaks[1]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="strategies; writes no table")
    parser.add_argument("--request", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.request:
        handle(given)
        return
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows: dict[str, list[tuple[float, float]]] = {}
    for name in given.only or strategies():
        rows[name] = [measure(name, size) for size in ("20", "45")]
        if not given.only:
            TABLE.write_text(table(rows))


def table(rows: dict[str, list[tuple[float, float]]]) -> str:
    """Return the page; strategies without a row are not measured yet."""
    small, large = (
        sum(array.nbytes for array in model_of(size).values()) / MEGABYTE
        for size in ("20", "45")
    )
    cells = "\n".join(
        f"| {name} | "
        + " | ".join(f"{peak:.1f}" for pair in rows[name] for peak in pair)
        + " |"
        if name in rows
        else f"| {name} |" + " not measured |" * 4
        for name in strategies()
    )
    return f"""# Device memory

Peak resident set of the process that handles a message, above interpreter, Flower and
numpy, in multiples of the model; the largest of {ROUNDS} rounds. The app holds the
model twice: as it is given, and as it returns it. Some of what is counted does not grow
with the model: the largest tensor, of 9.4 MB in both, passes through the app in several
copies.

| strategy | {small:.1f} MB, train | evaluate | {large:.1f} MB, train | evaluate |
| --- | --- | --- | --- | --- |
{cells}

Beside the app, a device holds the model that it was given; then, in place of what the
app returned, the update and what is left of earlier ones; and while that is encoded,
one array of its size. `ErrorBounded` remembers eight bytes an element on top: its last
reconstruction (float32) and two averages (16 bits each). They are read from the disk
tensor by tensor while an upload is encoded, and are in memory once it was acknowledged.
`FedComLoc` keeps control variates of the model's size, which the app is given too.

{describe("python benchmarks/device_memory.py")}
"""


if __name__ == "__main__":
    main()
