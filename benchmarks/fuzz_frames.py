"""Feed hostile frames to the decoders and watch errors, memory and time.

Each frame is a mutation of a good one, or random but for its header (see
`flwr_caesar.codec.conformance.mutate`), given to the decoder with the state it expects,
with the layout alone, or with nothing but a limit. A frame may decode, or raise
`CodecError`.
The script exits with 1 on any other exception or warning, if decoding takes more than
`--memory` times the expected arrays (plus 1 MiB) of memory, or more than `--slower`
times a good frame's decoding (and `--floor` milliseconds) of CPU time: a frame that
takes twice a good one's is timed again beside them, in the best of several tries.
Memory is traced, and time therefore not judged, in one block of frames of `--trace`.

    python benchmarks/fuzz_frames.py --frames 1000000 --seed 1 --seconds 3600
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec
from flwr_caesar.codec.conformance.mutate import mutate
from flwr_caesar.codec.conformance.suite import sample_arrays
from flwr_caesar.codec.contract.frame import FrameReader, Section, write_frame
from flwr_caesar.codec.contract.vector import gather
from flwr_caesar.codec.published.lattice_point import (
    LatticePoint,
    decode_point,
    encode_point,
    max_point_bytes,
    publish,
)
from tests.codec.samples import CONFIGS

Arrays = dict[str, np.ndarray[Any, Any]]
RETRIES = 7
SUSPECT = 2
BLOCK = 250
ROUNDS = 3


def few_elements(rng: np.random.Generator) -> Arrays:
    """Return 769 elements: kernels, a matrix, a vector, half precision, a counter."""
    shapes = {"conv": (8, 4, 3, 3), "head": (10, 40), "bias": (10,)}
    arrays: Arrays = {
        name: rng.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["half"] = rng.normal(0, 0.05, 70).astype(np.float16)
    arrays["steps"] = np.array(int(rng.integers(99)), np.int64)
    return arrays


def small_network(rng: np.random.Generator) -> Arrays:
    """Return 60 thousand float32 parameters in a few tensors."""
    shapes = {"conv": (32, 16, 3, 3), "bias": (32,), "head": (10, 5000), "odd": (7, 11)}
    arrays: Arrays = {
        name: rng.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["steps"] = np.array(int(rng.integers(99)), np.int64)
    return arrays


SAMPLES: dict[str, tuple[Callable[[np.random.Generator], Arrays], float]] = {
    "few elements": (few_elements, 0.7),
    "every dtype": (sample_arrays, 0.2),
    "small network": (small_network, 0.1),
}


@dataclass(frozen=True)
class Target:
    """A decoder, and good frames with what it holds when it decodes them.

    Parameters
    ----------
    decode : callable
        Takes a frame and a state.
    nbytes : int
        Of the expected arrays.
    good : list of (bytes, state)
        Frames and the states they are decoded from.
    stranger : object
        A state for frames that need none, given to most of them in place of `None`.
    """

    decode: Callable[[bytes, Any], object]
    nbytes: int
    good: list[tuple[bytes, Any]]
    stranger: Any

    @cached_property
    def seconds(self) -> float:
        """CPU time of the slowest good frame, in the best of several tries."""
        return max(
            min(measure(self, frame, held)[1] for _ in range(RETRIES))
            for frame, held in self.good
        )


def codec_target(config: dict[str, Any], sample: str) -> Target:
    """Encode three rounds."""
    codec = get_codec(config)
    make, _ = SAMPLES[sample]
    sender: CodecState | None = None
    receiver: CodecState | None = None
    good = []
    for i in range(ROUNDS):
        frame, sender = codec.encode(make(np.random.default_rng(i)), sender)
        good.append((frame, receiver))
        _, receiver = codec.decode(frame, receiver)
    assert sender is not None
    layout = sender.layout

    def decode(frame: bytes, state: CodecState | None) -> object:
        return codec.decode(frame, state, max_bytes=layout.nbytes)

    return Target(decode, layout.nbytes, good, CodecState(layout))


def point_target(sample: str) -> Target:
    """Publish three points, each a section of a frame: whole, then two differences."""
    make, _ = SAMPLES[sample]
    layout = Layout.of(make(np.random.default_rng(0)))
    specs = [spec for spec in layout.tensors if spec.is_float and spec.size >= 64]
    old: LatticePoint | None = None
    good = []
    for i in range(ROUNDS):
        new = publish(gather(make(np.random.default_rng(i)), specs), old, -7 - i)
        section = Section("LATT", encode_point(new, old, specs), itemsize=1)
        frame = write_frame(
            config={"id": "lattice_point"},
            layout_digest=layout.digest,
            sections=[section],
        )
        good.append((frame, old))
        old = new

    def decode(frame: bytes, held: LatticePoint | None) -> object:
        data = FrameReader(frame).section("LATT", max_size=max_point_bytes(specs))
        return decode_point(data, held, specs)

    return Target(decode, layout.nbytes, good, None)


def measure(target: Target, frame: bytes, state: Any) -> tuple[str, float, int]:
    """Decode, and return the outcome, CPU seconds and, if traced, peak memory."""
    before = 0
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    start = time.process_time()
    try:
        target.decode(frame, state)
        outcome = "decoded"
    except CodecError as err:
        outcome = type(err).__name__
    except Exception as err:
        outcome = f"ESCAPED {err!r}"
    seconds = time.process_time() - start
    return outcome, seconds, tracemalloc.get_traced_memory()[1] - before


def compare_times(target: Target, hostile: bytes, state: Any) -> tuple[float, float]:
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


@dataclass(frozen=True)
class Trial:
    """What came of one hostile frame."""

    kind: str
    outcome: str
    frame: bytes
    memory: float

    @property
    def failed(self) -> bool:
        """Whether it broke a rule."""
        return self.outcome[:4].isupper()


def try_one(
    target: Target, rng: np.random.Generator, args: argparse.Namespace
) -> Trial:
    """Mutate a good frame and decode it."""
    frame, state = target.good[int(rng.integers(len(target.good)))]
    if state is None and rng.random() < 0.7:
        state = target.stranger
    kind, hostile = mutate(frame, rng)
    allowed = args.memory * target.nbytes + (1 << 20)
    outcome, seconds, peak = measure(target, hostile, state)
    if peak > allowed:
        outcome = f"MEMORY {peak:,} bytes, allowed {allowed:,.0f}"
    elif not tracemalloc.is_tracing() and seconds > max(
        args.floor / 1000, SUSPECT * target.seconds
    ):
        seconds, good = compare_times(target, hostile, state)
        if seconds > max(args.slower * good, args.floor / 1000):
            outcome = f"TIME {1000 * seconds:.1f} ms, a good frame {1000 * good:.1f}"
    return Trial(kind, outcome, hostile, peak)


def make_targets() -> dict[str, dict[str, Target]]:
    """Return for each decoder its targets by sample."""
    targets = {
        json.dumps(config): {sample: codec_target(config, sample) for sample in SAMPLES}
        for config in CONFIGS
    }
    targets["lattice_point"] = {sample: point_target(sample) for sample in SAMPLES}
    return targets


def print_table(title: str, rows: dict[str, Counter[str]]) -> None:
    """Print outcomes as a Markdown table."""
    print(f"| {title} | frames | outcomes |\n| --- | ---: | --- |")
    for name, outcomes in rows.items():
        text = ", ".join(f"{key} {count:,}" for key, count in outcomes.most_common())
        print(f"| {name} | {outcomes.total():,} | {text} |")
    print()


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
    parser.add_argument("--floor", type=float, default=1, help="milliseconds")
    parser.add_argument("--trace", type=int, default=20, help="blocks to a traced one")
    parser.add_argument("--save", type=Path, help="folder for the frames that fail")
    return parser.parse_args()


def main() -> int:
    """Fuzz, print tables, and return the exit status."""
    args = parse_args()
    warnings.simplefilter("error")
    targets = make_targets()
    for target in chain.from_iterable(found.values() for found in targets.values()):
        _ = target.seconds
    names = list(targets)
    shares = [share for _, share in SAMPLES.values()]
    by_codec = {name: Counter[str]() for name in names}
    by_kind: dict[str, Counter[str]] = {}
    by_sample = {sample: Counter[str]() for sample in SAMPLES}
    worst = dict.fromkeys(SAMPLES, 0.0)
    failures: list[str] = []
    rng = np.random.default_rng(args.seed)
    start = time.monotonic()
    done = traced = 0
    while done < args.frames and time.monotonic() - start < args.seconds:
        if done % BLOCK == 0:
            if done // BLOCK % args.trace == 0:
                tracemalloc.start()
            else:
                tracemalloc.stop()
        if done % 10_000 == 0:
            seconds = time.monotonic() - start
            note = f"{done:,} frames, {seconds:.0f} s, {len(failures)} failures"
            print(note, file=sys.stderr, flush=True)
        name = names[done % len(names)]
        sample = str(rng.choice(list(SAMPLES), p=shares))
        trial = try_one(targets[name][sample], rng, args)
        outcome = trial.outcome.split()[0]
        by_codec[name][outcome] += 1
        by_kind.setdefault(trial.kind, Counter())[outcome] += 1
        by_sample[sample][outcome] += 1
        worst[sample] = max(worst[sample], trial.memory)
        traced += tracemalloc.is_tracing()
        if trial.failed:
            what = f"frame {done}, {trial.kind}, {name} on {sample}: {trial.outcome}"
            failures.append(what)
            print(what, file=sys.stderr, flush=True)
            if args.save:
                args.save.mkdir(parents=True, exist_ok=True)
                path = args.save / f"{args.seed}-{done}.bin"
                path.write_bytes(trial.frame)
        done += 1
    print(f"{done:,} frames in {time.monotonic() - start:.0f} s, seed {args.seed}\n")
    print_table("decoder", by_codec)
    print_table("frame", by_kind)
    print_table("arrays", by_sample)
    peaks = ", ".join(f"{name} {peak:,.0f} bytes" for name, peak in worst.items())
    print(f"Peak memory in {traced:,} traced frames: {peaks}")
    print(f"{len(failures)} failures")
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
