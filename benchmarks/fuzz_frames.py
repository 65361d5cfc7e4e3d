"""Feed hostile frames to the decoders and watch errors, memory and time.

Each frame is a mutation of a good one (see `flwr_caesar.codec.mutate`), given to the
decoder with the state it expects, with the layout alone, or with nothing but a limit.
A frame may decode, or raise `CodecError`. The script exits with 1 on any other
exception, if decoding takes more than `--memory` times the expected arrays (plus
1 MiB) of memory, or more than `--slower` times a good frame's decoding (and `--floor`
milliseconds) of CPU time, in the best of several tries. Memory is traced, and time
therefore not judged, in one block of frames of four.

    python benchmarks/fuzz_frames.py --frames 100000 --seed 1 --seconds 300
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flwr_caesar.codec import Codec, CodecError, CodecState, Layout, get_codec
from flwr_caesar.codec.mutate import mutate
from flwr_caesar.codec.testing import sample_arrays
from tests.codec.samples import CONFIGS

Arrays = dict[str, np.ndarray[Any, Any]]
RETRIES = 7
BLOCK = 250


def small_network(rng: np.random.Generator) -> Arrays:
    """Return 60 thousand float32 parameters in a few tensors."""
    shapes = {"conv": (32, 16, 3, 3), "bias": (32,), "head": (10, 5000), "odd": (7, 11)}
    arrays: Arrays = {
        name: rng.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["steps"] = np.array(int(rng.integers(99)), np.int64)
    return arrays


SAMPLES: dict[str, Callable[[np.random.Generator], Arrays]] = {
    "every dtype": sample_arrays,
    "small network": small_network,
}


@dataclass(frozen=True)
class Target:
    """A codec, and its good frames with the states they are decoded from."""

    codec: Codec
    layout: Layout
    good: list[tuple[bytes, CodecState | None]]


def make_target(config: dict[str, Any], sample: str) -> Target:
    """Encode three rounds."""
    codec = get_codec(config)
    sender: CodecState | None = None
    receiver: CodecState | None = None
    good = []
    for i in range(3):
        frame, sender = codec.encode(SAMPLES[sample](np.random.default_rng(i)), sender)
        good.append((frame, receiver))
        _, receiver = codec.decode(frame, receiver)
    assert sender is not None
    return Target(codec, sender.layout, good)


def measure(
    target: Target, frame: bytes, state: CodecState | None
) -> tuple[str, float, int]:
    """Decode, and return the outcome, CPU seconds and, if traced, peak memory."""
    before = 0
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    start = time.process_time()
    try:
        target.codec.decode(frame, state, max_bytes=target.layout.nbytes)
        outcome = "decoded"
    except CodecError as err:
        outcome = type(err).__name__
    except Exception as err:
        outcome = f"ESCAPED {err!r}"
    seconds = time.process_time() - start
    return outcome, seconds, tracemalloc.get_traced_memory()[1] - before


def compare_times(
    target: Target, hostile: bytes, state: CodecState | None
) -> tuple[float, float]:
    """Return the best seconds of the hostile frame and of the slowest good one."""
    rounds = [
        (
            measure(target, hostile, state)[1],
            *(measure(target, frame, held)[1] for frame, held in target.good),
        )
        for _ in range(RETRIES)
    ]
    best = np.min(rounds, axis=0)
    return float(best[0]), float(best[1:].max())


def try_one(
    target: Target, rng: np.random.Generator, args: argparse.Namespace
) -> tuple[str, str, bytes, float]:
    """Mutate a good frame, decode it, and return kind, outcome, frame and memory."""
    frame, state = target.good[int(rng.integers(len(target.good)))]
    if state is None and rng.random() < 0.7:
        state = CodecState(target.layout)
    kind, hostile = mutate(frame, rng)
    allowed = args.memory * target.layout.nbytes + (1 << 20)
    outcome, seconds, peak = measure(target, hostile, state)
    if peak > allowed:
        outcome = f"MEMORY {peak:,} bytes, allowed {allowed:,.0f}"
    elif 1000 * seconds > args.floor and not tracemalloc.is_tracing():
        seconds, good = compare_times(target, hostile, state)
        if seconds > max(args.slower * good, args.floor / 1000):
            outcome = f"TIME {1000 * seconds:.1f} ms, a good frame {1000 * good:.1f}"
    return kind, outcome, hostile, peak / target.layout.nbytes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="stop after this")
    parser.add_argument("--memory", type=float, default=6, help="times the layout")
    parser.add_argument("--slower", type=float, default=3, help="times a good frame")
    parser.add_argument("--floor", type=float, default=5, help="milliseconds")
    parser.add_argument("--save", type=Path, help="folder for the frames that fail")
    return parser.parse_args()


def main() -> int:
    """Fuzz, print a table, and return the exit status."""
    args = parse_args()
    targets = {
        f"{json.dumps(config)} on {sample}": make_target(config, sample)
        for config in CONFIGS
        for sample in SAMPLES
    }
    counts: dict[str, Counter[str]] = {name: Counter() for name in targets}
    worst = dict.fromkeys(targets, 0.0)
    failures: list[str] = []
    rng = np.random.default_rng(args.seed)
    names = list(targets)
    start = time.monotonic()
    done = 0
    while done < args.frames and time.monotonic() - start < args.seconds:
        if done % BLOCK == 0:
            if done // BLOCK % 4 == 0:
                tracemalloc.start()
            else:
                tracemalloc.stop()
        name = names[done % len(names)]
        kind, outcome, frame, share = try_one(targets[name], rng, args)
        counts[name][outcome.split()[0]] += 1
        worst[name] = max(worst[name], share)
        if outcome[:4].isupper():
            failures.append(f"frame {done}, {kind}, {name}: {outcome}")
            if args.save:
                args.save.mkdir(parents=True, exist_ok=True)
                (args.save / f"{args.seed}-{done}.bin").write_bytes(frame)
        done += 1
    print(f"{done:,} frames in {time.monotonic() - start:.0f} s, seed {args.seed}\n")
    print("| codec and sample | peak memory / layout | outcomes |\n| --- | --- | --- |")
    for name, outcomes in counts.items():
        text = ", ".join(f"{key} {count:,}" for key, count in outcomes.most_common())
        print(f"| {name} | {worst[name]:.2f} | {text} |")
    print(f"\n{len(failures)} failures")
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
