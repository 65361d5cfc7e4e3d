"""What codecs cost on a JVM, beside numpy, at two sizes of models.

CPU time of one thread, the best of five runs once either has warmed up, and the JVM's
very first. The JVM is not ART: how a phone compares to it is not known here.

    python benchmarks/android_throughput.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from environment import describe

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.published.lattice_model import (
    decode_model,
    encode_model,
    publish_model,
)
from flwr_caesar.codec.published.publication import initial_point
from flwr_caesar.tasks.models import build_model
from tests.android.jvm import Jvm

RUNS = 5
CODEC = {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 1024}
SHAPES = {"cnn": [1, 28, 28], "resnet18": [3, 32, 32]}


def measure(task: Callable[[], object]) -> float:
    """Return the best CPU time of a task, in milliseconds."""
    task()
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        task()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def model_of(name: str) -> dict[str, Any]:
    config = {"name": name, "input_shape": SHAPES[name], "num_classes": 10}
    config |= {"norm": "group", "norm_groups": 32} if name == "resnet18" else {}
    state = build_model(config, 1).state_dict()
    return {key: tensor.numpy() for key, tensor in state.items()}


def rows(name: str) -> Iterator[str]:
    """Measure the codecs on a model; yield the rows of the table."""
    model = model_of(name)
    rng = np.random.default_rng(1)
    update = {
        key: rng.laplace(0, 0.002, array.shape).astype(np.float32)
        for key, array in model.items()
    }
    dense, lattice = get_codec("dense"), get_codec(CODEC)
    before = initial_point(model)
    trained = {key: model[key] + update[key] for key in model}
    after = publish_model(trained, before, -9)
    held, digest = before.arrays(), before.digest
    known = CodecState(Layout.of(update))
    blobs = [
        dense.encode(held)[0],
        encode_model(after),
        encode_model(after, before),
        dense.encode(update)[0],
        lattice.encode(update, known)[0],
    ]
    ours: dict[str, Callable[[], object]] = {
        "decode dense": lambda: dense.decode(blobs[0]),
        "decode whole model": lambda: decode_model(blobs[1]),
        "decode change": lambda: decode_model(blobs[2], held, base_digest=digest),
        "decode upload": lambda: lattice.decode(blobs[4], known),
        "encode upload": lambda: lattice.encode_decoded(update, known),
    }
    with Jvm() as jvm:
        reply = jvm.ask("throughput", blobs, codec=dict(lattice.config))
    count = sum(array.size for array in model.values())
    for task, (first, best) in reply.values["milliseconds"].items():
        row = f"{best:.1f} | {first:.1f} | {measure(ours[task]):.1f}"
        yield f"| {name}, {count:,} | {task} | {row} |"


def main() -> None:
    """Measure and print a table."""
    print("| model | task | JVM, ms | its first, ms | numpy, ms |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in SHAPES:
        for row in rows(name):
            print(row, flush=True)
    java = subprocess.run(["java", "-version"], capture_output=True, text=True)
    command = describe("python benchmarks/android_throughput.py", ("numpy",))
    print(f"\n{command} {java.stderr.splitlines()[0]}. JVM, not ART.")


if __name__ == "__main__":
    main()
