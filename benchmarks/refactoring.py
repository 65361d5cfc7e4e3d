"""Speed and bytes of two trees of this repository, in alternation.

Unpack the tree to compare with into a folder, such as that of the commit before the
strategies became methods and the codec got its rooms:

    mkdir before && git archive 5d7c878 | tar -x -C before
    python benchmarks/refactoring.py --before before

Each tree is laid out as its wheel is, and a process of its own imports it. The two
processes run the same job on the same arrays in turn, the first one changing each time,
so that whatever else the machine does meets both alike. The seconds are those of the
processor; a ratio is that of two runs next to each other. Writes
docs/benchmarks/refactoring.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

HERE = Path(__file__).parents[1]
TABLE = HERE / "docs" / "benchmarks" / "refactoring.md"
LAYOUTS = ("MNIST CNN", "ResNet-18")
CODECS = {"lattice": {}, "topk": {"density": 0.05}, "quantized": {"density": 0.05}}
STRATEGIES = ("TopK", "Caesar")
ROUNDS, DEVICES = 6, 4
LEAST_SECONDS = 0.1
NAMES = [
    *(f"{c}, {m}, {w}" for m in LAYOUTS for c in CODECS for w in ("encode", "decode")),
    *(f"{s}, {ROUNDS} rounds" for s in STRATEGIES),
]

ABOUT = """\
Before is commit 5d7c878, in which strategies were a tower of subclasses and the codec
one folder. Both trees do the same work on the same arrays in turn, one run of either
after the other. Milliseconds are those of the processor, medians of {times} runs; the
ratio is now / before of neighbouring runs, the median and its quartiles. "The same"
means the same bytes of frames, or of what they decode to. Rounds are all of
`Strategy.start` with {devices} devices that only add noise to the MNIST CNN."""

Arrays = dict[str, np.ndarray[Any, Any]]
Job = Callable[[], str]


def model(layout: str) -> Arrays:
    """Return a model: 214,090 parameters, or 11.2 million."""
    if layout == "ResNet-18":
        from models import resnet18_arrays

        return resnet18_arrays()
    rng = np.random.default_rng(0)
    shapes = {
        "conv1.weight": (16, 1, 5, 5),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 5, 5),
        "conv2.bias": (32,),
        "fc1.weight": (384, 512),
        "fc1.bias": (384,),
        "fc2.weight": (10, 384),
        "fc2.bias": (10,),
    }
    return {
        name: 0.05 * rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


def update(arrays: Arrays) -> Arrays:
    """Return an update of a model: Laplacian, all tensors of one scale."""
    rng = np.random.default_rng(1)
    return {
        name: rng.laplace(0, 1e-3, a.shape).astype(a.dtype)
        for name, a in arrays.items()
    }


def job(name: str) -> tuple[Job, Job]:
    """Return what to prepare for a row of the table, and what to measure."""
    what, *rest = name.split(", ")
    if what in STRATEGIES:
        return _rounds_job(what)
    layout, way = rest
    return _codec_job(what, layout, way)


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:12]}"


def _codec_job(codec_id: str, layout: str, way: str) -> tuple[Job, Job]:
    from flwr_caesar.codec import get_codec

    codec = get_codec({"id": codec_id, **CODECS[codec_id]})
    kept: dict[str, Any] = {}

    def prepare() -> str:
        kept["update"] = update(model(layout))
        kept["frame"], _ = codec.encode(kept["update"])
        return ""

    def encode() -> str:
        return _digest(codec.encode(kept["update"])[0])

    def decode() -> str:
        decoded, _ = codec.decode(kept["frame"])
        return _digest(b"".join(a.tobytes() for a in decoded.values()))

    return prepare, encode if way == "encode" else decode


def _rounds_job(name: str) -> tuple[Job, Job]:
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp.strategy import FedAvg

    from flwr_caesar import strategies
    from flwr_caesar.clients import compression_mod
    from flwr_caesar.runner.inline import InlineGrid

    def start() -> str:
        app = ClientApp(mods=[compression_mod])

        @app.train()
        def train(msg: Message, context: Any) -> Message:
            trained = msg.content["arrays"].to_numpy_ndarrays()
            rng = np.random.default_rng(context.node_id)
            for array in trained:
                array += rng.laplace(0, 1e-3, array.shape).astype(array.dtype)
            content = RecordDict(
                {
                    "arrays": ArrayRecord(
                        {
                            key: Array(a)
                            for key, a in zip(
                                msg.content["arrays"], trained, strict=True
                            )
                        }
                    ),
                    "metrics": MetricRecord({"num-examples": 10}),
                }
            )
            return Message(content, reply_to=msg)

        inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=DEVICES)
        options = {"ask_labels": False} if name == "Caesar" else {"density": 0.05}
        strategy = getattr(strategies, name)(inner, **options)
        first = ArrayRecord({k: Array(a) for k, a in model("MNIST CNN").items()})
        result = strategy.start(InlineGrid(app, DEVICES), first, num_rounds=ROUNDS)
        devices = [device for record in strategy.history for device in record.devices]
        down = sum(device.bytes_down for device in devices)
        up = sum(device.bytes_up for device in devices)
        final = b"".join(a.tobytes() for a in result.arrays.to_numpy_ndarrays())
        return f"{down} down, {up} up, {hashlib.sha256(final).hexdigest()[:12]}"

    return lambda: "", start


def work() -> None:
    """Answer each line, the name of a job, with its seconds and digest."""
    sys.stdout, replies = sys.stderr, sys.stdout
    prepared = ""
    for line in sys.stdin:
        if line != prepared:
            prepare, run = job(line.rstrip("\n"))
            prepare()
            prepared = line
        count, start = 0, time.process_time()
        while not count or time.process_time() < start + LEAST_SECONDS:
            digest = run()
            count += 1
        told = {"seconds": (time.process_time() - start) / count, "digest": digest}
        print(json.dumps(told), file=replies, flush=True)


class Worker:
    """A process that imports one tree."""

    def __init__(self, tree: Path, place: Path) -> None:
        lay_out(tree, place)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=place,
            env={
                **os.environ,
                "PYTHONPATH": str(place),
                "OMP_NUM_THREADS": "1",
                "FLWR_TELEMETRY_ENABLED": "0",
            },
        )

    def run(self, job: str) -> dict[str, Any]:
        """Return the seconds and the digest of a job."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        return _ask(stdin, stdout, job)


def _ask(stdin: IO[str], stdout: IO[str], job: str) -> dict[str, Any]:
    print(job, file=stdin, flush=True)
    answer = stdout.readline()
    if not answer:
        raise SystemExit(f"the process that ran {job!r} ended")
    told: dict[str, Any] = json.loads(answer)
    return told


def lay_out(tree: Path, place: Path) -> None:
    """Copy a tree's packages to where its wheel would have them."""
    setup = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    places = setup["tool"]["setuptools"]["package-dir"]
    for package in setup["tool"]["setuptools"]["packages"]:
        name = next((p for p in places if f"{package}.".startswith(f"{p}.")), None)
        source = tree / package.replace(".", "/")
        if name is not None:
            rest = package.removeprefix(name).strip(".").replace(".", "/")
            source = tree / places[name] / rest
        target = place / package.replace(".", "/")
        target.mkdir(parents=True, exist_ok=True)
        for path in source.glob("*"):
            if path.is_file():
                shutil.copy(path, target)


def measure(before: Worker, now: Worker, job: str, times: int) -> list[str]:
    """Return a row: median seconds, the ratio and its quartiles, and the bytes."""
    seconds: dict[Worker, list[float]] = {before: [], now: []}
    digests: dict[Worker, list[str]] = {before: [], now: []}
    for each in (before, now):
        each.run(job)  # not measured: the first run imports and fills caches
    for turn in range(times):
        for each in (before, now) if turn % 2 else (now, before):
            told = each.run(job)
            seconds[each].append(told["seconds"])
            digests[each].append(told["digest"])
    ratios = [n / b for b, n in zip(seconds[before], seconds[now], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    sizes = {each: digests[each][-1].rpartition(", ")[0] for each in (before, now)}
    same = set(digests[before]) == set(digests[now])
    content = "the same" if same else f"before: {sizes[before]}"
    return [
        job,
        *(f"{1e3 * statistics.median(seconds[each]):.1f}" for each in (before, now)),
        f"{middle:.2f} ({low:.2f} to {high:.2f})",
        sizes[now],
        content,
    ]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the tree to compare with")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--output", type=Path, default=TABLE)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work()
        return
    if args.before is None:
        parser.error("--before: the tree to compare with")
    from environment import describe

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        before = Worker(args.before.resolve(), Path(folder, "before"))
        now = Worker(HERE, Path(folder, "now"))
        for name in NAMES:
            rows.append(measure(before, now, name, args.times))
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
        for each in (before, now):
            assert each.process.stdin is not None
            each.process.stdin.close()
            each.process.wait()
    command = f"python benchmarks/refactoring.py --before before --times {args.times}"
    lines = [
        "# Speed and bytes before and after the rooms and the methods",
        "",
        ABOUT.format(times=args.times, devices=DEVICES),
        "",
        "| what | ms before | ms now | ratio | bytes now | content |",
        "| --- | --: | --: | --: | --: | --- |",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        describe(command, ("flwr", "numpy", "zstandard")),
        "",
    ]
    kept = ""
    if args.output.exists():  # what is said of the table stays
        _, _, kept = args.output.read_text(encoding="utf-8").partition("\n## ")
    if kept:
        lines += ["## " + kept.rstrip(), ""]
    args.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
