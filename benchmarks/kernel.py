"""Time the compiled kernel beside numpy's loops, and rANS beside constriction.

Everything runs in this process on one thread, with the kernel and without it in turn,
so that a busy machine slows both: CPU time, best of several. Frames are compared to the
byte. Updates are Laplace variables whose scale varies over channels; a message is a
whole one of a device that takes part in a small run of Caesar, from the request that
Flower hands it to the reply. The page is written to docs/benchmarks/kernel.md.

    pip install constriction
    python benchmarks/kernel.py
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe
from flwr.app import Message
from models import resnet18_arrays

sys.path.insert(0, str(Path(__file__).parents[1]))

from flwr_caesar.codec import CodecState, get_codec, kernel
from flwr_caesar.codec.coding import lanes
from flwr_caesar.codec.coding.contexts import fit_scales, scale_classes
from flwr_caesar.codec.coding.counts import count_symbols, entropy_bits
from flwr_caesar.codec.coding.integers import to_symbols
from flwr_caesar.codec.coding.tables import normalise, quantise_counts
from flwr_caesar.codec.contract.layout import Layout
from flwr_caesar.codec.quantisers.quantise import quantise_dead_zone
from flwr_caesar.plan.precision import UPLOAD_ERROR
from tests.apps.goal import app_of
from tests.apps.grid import CountingGrid
from tests.apps.run import run

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "kernel.md"
NATIVE = kernel.native
CAESAR = {
    "id": "lattice",
    "nmse": UPLOAD_ERROR,
    "exact_below": 0,
    "fine_below": 1024,
    "dead_zone": 0.501,
    "compact": True,
}
CODECS: dict[str, dict[str, Any]] = {
    "lattice, 1 bit": {"id": "lattice", "rate": 1.0},
    "lattice, 0.3 bits": {"id": "lattice", "rate": 0.3},
    "lattice as Caesar sends it, rank 0": CAESAR,
    "lattice as Caesar sends it": {**CAESAR, "rank": 16},
    "error_bounded, 1e-2": {"id": "error_bounded", "rel": 1e-2},
    "qsgd, 7 levels": {"id": "qsgd", "levels": 7},
}
THREADS = "OPENBLAS_NUM_THREADS"
MEASURED, SIZE, CONTEXTS = 1 << 21, 64, 20

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@contextmanager
def without_kernel() -> Iterator[None]:
    """Have numpy run the loops."""
    kernel.native = None
    try:
        yield
    finally:
        kernel.native = NATIVE


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def best(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the least CPU time of each call, one after another in every repetition."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: min(found) for name, found in times.items()}


def both(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least CPU time of a call without and with the kernel."""

    def plain() -> None:
        with without_kernel():
            call()

    found = best({"numpy": plain, "kernel": call}, repeats)
    return found["numpy"], found["kernel"]


def update_like(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    """Return Laplace variables whose scale varies over the channels of a tensor."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        x = rng.laplace(0, 1e-3, shape)
        for axis in range(min(len(shape), 2) if len(shape) > 1 else 0):
            own = [n if i == axis else 1 for i, n in enumerate(shape)]
            x *= np.exp(rng.normal(0, 0.7, own))
        arrays[name] = x.astype(np.float32)
    return arrays


def models() -> dict[str, Arrays]:
    """Return updates of three sizes."""
    perceptron = {
        "in": (64, 100),
        "in.bias": (64,),
        "hidden": (40, 64),
        "out": (10, 40),
    }
    network = {
        **{"conv1": (32, 3, 3, 3), "conv1.bias": (32,), "conv2": (64, 32, 3, 3)},
        **{"conv2.bias": (64,), "hidden": (47, 4096), "hidden.bias": (47,)},
        **{"out": (10, 47), "out.bias": (10,)},
    }
    resnet = {
        name: array.shape
        for name, array in resnet18_arrays().items()
        if array.dtype == np.float32
    }
    return {
        "perceptron": update_like(perceptron),
        "CNN": update_like(network),
        "ResNet-18": update_like(resnet),
    }


def codec_table(repeats: int) -> list[str]:
    """Return the table of encoding and decoding."""
    lines = [
        "| update | parameters | codec | bytes | encode, numpy | kernel | | "
        "decode, numpy | kernel | |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model, arrays in models().items():
        layout = Layout.of(arrays)
        large = layout.num_params > 10**6
        for label, config in CODECS.items():
            if large and config["id"] != "lattice":
                continue
            codec, held = get_codec(config), CodecState(layout)
            frame, _ = codec.encode(arrays, held)
            with without_kernel():
                assert codec.encode(arrays, held)[0] == frame
            often = repeats * (1 if large else 4)
            encode = both(lambda c=codec, a=arrays, h=held: c.encode(a, h), often)
            decode = both(lambda c=codec, f=frame, h=held: c.decode(f, h), often)
            cells = [
                f"{1000 * a:.1f} ms | {1000 * b:.1f} ms | {a / b:.1f} ×"
                for a, b in (encode, decode)
            ]
            lines.append(
                f"| {model} | {layout.num_params:,} | {label} | {len(frame):,} | "
                f"{' | '.join(cells)} |"
            )
            print(lines[-1], flush=True)
    return lines


class TimedGrid(CountingGrid):
    """A grid that keeps the CPU time of each message that a device works on."""

    times: list[float]

    def _reply(self, message_id: str, message: Message) -> Message:
        start = time.process_time()
        reply = super(CountingGrid, self)._reply(message_id, message)
        self.times.append(time.process_time() - start)
        return reply


def message_milliseconds(size: int, strategy: str) -> float:
    """Return the least time of a device's training message after the first round."""
    app = app_of("", (size // 100, 100))
    grids: list[TimedGrid] = []

    def watch(grid: CountingGrid) -> None:
        grid.__class__ = TimedGrid
        assert isinstance(grid, TimedGrid)
        grid.times = []
        grids.append(grid)

    run(app, strategy, watch=watch)
    return 1000 * min(grids[0].times[app.nodes :])


def message_table() -> list[str]:
    """Return the table of whole messages."""
    lines = [
        "| parameters | plain Flower | Caesar, numpy | Caesar, kernel |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for size in (1000, 10_000):
        cells = []
        for strategy, plain in (("Flower", False), ("Caesar", True), ("Caesar", False)):
            kernel.native = None if plain else NATIVE
            cells.append(f"{message_milliseconds(size, strategy):.1f} ms")
        kernel.native = NATIVE
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def draw_symbols(scale: float, contexts: int) -> tuple[Array, Array, Array]:
    """Return integers, their symbols, and contexts on which their scale depends."""
    rng = np.random.default_rng(0)
    context = rng.integers(0, contexts, MEASURED).astype(np.uint8)
    spread = 2.0 ** ((context.astype(np.float64) - contexts / 2) / 4)
    values = np.rint(rng.laplace(0, scale, MEASURED) * spread).astype(np.int32)
    return values, to_symbols(values), context


def stage_table(repeats: int) -> list[str]:
    """Return the table of single loops."""
    values, symbols, context = draw_symbols(0.25, CONTEXTS)
    x = update_like({"x": (MEASURED // SIZE // 9, SIZE, 9)})["x"]
    codes = quantise_counts(count_symbols(symbols, context, CONTEXTS))
    table = lanes.encoder_table(codes)
    used = np.ones(CONTEXTS, bool)
    states, stack = push(symbols, context, table)
    scales = fit_scales(x, np.float32(1e-3))

    def decode() -> None:
        tables = lanes.decoder_tables(codes, used, MEASURED)
        found = np.empty(MEASURED, np.uint16)
        lanes.pull(states.copy(), stack, found, context, tables)
        assert (found[:100] == symbols[:100]).all()

    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "rANS, encode": (MEASURED, lambda: push(symbols, context, table)),
        "rANS, decode": (MEASURED, decode),
        "symbols of integers": (MEASURED, lambda: to_symbols(values)),
        "counts": (MEASURED, lambda: count_symbols(symbols, context, CONTEXTS)),
        "dead zone": (x.size, lambda: quantise_dead_zone(x, 1e-3, 0.6)),
        "scale sums": (x.size, lambda: fit_scales(x, np.float32(1e-3))),
        "classes": (x.size, lambda: np.array(scale_classes(scales, x.shape))),
    }
    lines = [
        "| loop | numpy | kernel | |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, (n, call) in calls.items():
        a, b = both(call, repeats)
        lines.append(
            f"| {name} | {4e-6 * n / a:,.0f} | {4e-6 * n / b:,.0f} | {a / b:.1f} × |"
        )
        print(lines[-1], flush=True)
    return lines


def push(symbols: Array, context: Array, table: Array) -> tuple[Array, Array]:
    """Return the states and the words of 2,048 lanes."""
    states = np.full(1 << 11, lanes.LOWEST, np.uint32)
    words: list[Array] = []
    lanes.push(states, words, symbols, context, table)
    return states, np.concatenate(words[::-1])


def peer_row(scale: float, repeats: int) -> str:
    """Return a line of the table beside constriction."""
    import constriction

    stream = constriction.stream
    _, symbols, context = draw_symbols(scale, 1)
    counts = count_symbols(symbols, context, 1)
    codes = quantise_counts(counts)
    table, used = lanes.encoder_table(codes), np.ones(1, bool)
    frequencies = normalise(codes)[0]
    shares = (frequencies / frequencies.sum()).astype(np.float32)
    model = stream.model.Categorical(shares, perfect=False)
    wide = symbols.astype(np.int32)
    states, stack = push(symbols, context, table)

    def decode() -> None:
        tables = lanes.decoder_tables(codes, used, MEASURED)
        found = np.empty(MEASURED, np.uint16)
        lanes.pull(states.copy(), stack, found, context, tables)

    def their_encode() -> Array:
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(wide, model)
        return np.asarray(coder.get_compressed())

    theirs = their_encode()

    def their_decode() -> object:
        return stream.stack.AnsCoder(theirs).decode(model, MEASURED)

    def plain(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with without_kernel():
                call()

        return run

    def encode() -> object:
        return push(symbols, context, table)

    cells = [f"{entropy_bits(counts) / MEASURED:.2f}"]
    for ours, peer in ((encode, their_encode), (decode, their_decode)):
        calls = {"numpy": plain(ours), "kernel": ours, "peer": peer}
        found = best(calls, repeats)
        cells += [f"{4e-6 * MEASURED / t:,.0f}" for t in found.values()]
        cells.append(f"{found['peer'] / found['kernel']:.1f} ×")
    return f"| {' | '.join(cells)} |"


def peer_table(repeats: int) -> list[str]:
    """Return the table beside constriction, with the same frequencies."""
    lines = [
        "| bits a symbol | encode, numpy | kernel | constriction | | "
        "decode, numpy | kernel | constriction | |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for scale in (0.25, 0.6, 1.3, 5.0):
        lines.append(peer_row(scale, repeats))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if os.environ.get(THREADS) != "1":  # BLAS reads it once, when it is loaded
        os.execve(
            sys.executable, [sys.executable, *sys.argv], os.environ | {THREADS: "1"}
        )
    if NATIVE is None:
        parser.error(f"loops run in {kernel.in_use}")
    logging.disable(logging.INFO)
    lines = [
        "# The compiled kernel",
        "",
        "CPU time, one thread, least of several, numpy and kernel in turn in one "
        "process. Frames are the same to the byte. Updates are Laplace variables whose "
        "scale varies over the channels, so products are looked for, and none is sent; "
        "what the kernel is: [kernel.md](../kernel.md).",
        "",
        "## Frames",
        "",
        *codec_table(args.repeats),
        "",
        "## Whole messages of a device",
        "",
        "From the request that Flower hands a device to its reply, the app's own work "
        "included, which is next to none: a model in one tensor, pulled towards a "
        "goal. Nothing is counted of the process that Flower starts.",
        "",
        *message_table(),
        "",
        "## Loops",
        "",
        f"MB/s of float32, 10^6 bytes: {MEASURED:,} elements, {CONTEXTS} contexts, "
        "about 1.2 bits an element.",
        "",
        *stage_table(4 * args.repeats),
        "",
        "## rANS beside constriction",
        "",
        "MB/s, a symbol counted as one float32. One context, the same frequencies for "
        "both, given before; decoding includes making the decoder's own table of them. "
        "The last column of each is how many times as long constriction takes.",
        "",
        *peer_table(4 * args.repeats),
        "",
        f"Other work ran on the cores, the load was {os.getloadavg()[1]:.0f}: compare "
        "within a row.",
        describe("python benchmarks/kernel.py", ("flwr", "numpy", "constriction")),
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
