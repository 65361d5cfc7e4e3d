"""Time the slowest frames that we know how to make, beside good ones of their layout.

For each codec and layout the good frame is the slower of two: of Gaussian values, and
of such in channels of unlike scales, as updates have them. The worst is that of
`worst_frames` that takes longest. A reader that knows the layout expects it; one that
does not believes the frame's own table. Times are CPU time, the best of several tries
in turn with the good frame.
Exits with 1 if a frame takes more than 3 times as long as the good one and 10 ms.

    python benchmarks/slow_frames.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import describe
from worst_frames import Arrays, worst_frames

from flwr_caesar.codec import CodecError, CodecState, get_codec
from flwr_caesar.codec.published.lattice_model import (
    decode_model,
    encode_model,
    publish_model,
)
from tests.codec.samples import CONFIGS

SHAPES: dict[str, list[tuple[int, ...]]] = {
    "768": [(96, 8)],
    "4,096": [(64, 64)],
    "24,576": [(96, 256)],
    "49,152": [(96, 512)],
    "61,440": [(96, 640)],
    "983,040": [(960, 1024)],
    "2,000 × 64": [(64,)] * 2_000,
    "20 × 4,096": [(64, 64)] * 20,
}
MODELS: list[dict[str, Any]] = [
    {"id": "lattice_model"},
    {"id": "lattice_model", "compact": True},
]
TIMES, FLOOR = 3, 10.0
TRIES = 9
Decode = Callable[[bytes], object]


@dataclass(frozen=True)
class Side:
    """A reader: how it decodes, and how what it expects is encoded."""

    encode: Callable[[Arrays], bytes]
    decode: Decode


def arrays_of(shapes: list[tuple[int, ...]], seed: int) -> Arrays:
    """Return Gaussian tensors."""
    rng = np.random.default_rng(seed)
    return {
        f"w{i}": rng.normal(0, 0.05, shape).astype(np.float32)
        for i, shape in enumerate(shapes)
    }


def readers(config: dict[str, Any], shapes: list[tuple[int, ...]]) -> dict[str, Side]:
    """Return a reader that knows the layout, one that does not, one with a state."""
    if config["id"] == "lattice_model":
        return model_readers(shapes, compact="compact" in config)
    codec = get_codec(config)
    first, sender = codec.encode(arrays_of(shapes, 0))
    known = CodecState(sender.layout)
    sides = {
        "known": Side(
            lambda arrays: codec.encode(arrays, known)[0],
            lambda frame: codec.decode(frame, known),
        ),
        "unknown": Side(
            lambda arrays: codec.encode(arrays)[0],
            lambda frame: codec.decode(frame, max_bytes=sender.layout.nbytes),
        ),
    }
    if sender.arrays:
        _, held = codec.decode(first)
        sides["continued"] = Side(
            lambda arrays: codec.encode(arrays, sender)[0],
            lambda frame: codec.decode(frame, held),
        )
    return sides


def model_readers(shapes: list[tuple[int, ...]], *, compact: bool) -> dict[str, Side]:
    """Return a reader that holds a published model, and one that holds none."""
    old = publish_model(arrays_of(shapes, 0), None, -9)
    base = old.arrays()
    return {
        "known": Side(
            lambda arrays: encode_model(
                publish_model(arrays, old, -9), old, compact=compact
            ),
            lambda frame: decode_model(frame, base, base_digest=old.digest),
        ),
        "unknown": Side(
            lambda arrays: encode_model(
                publish_model(arrays, None, -9), compact=compact
            ),
            lambda frame: decode_model(frame, max_bytes=old.layout.nbytes),
        ),
    }


def unlike_channels(arrays: Arrays) -> Arrays:
    """Return the tensors with their first axis scaled from 1 to 1,000."""
    return {
        name: x
        * np.logspace(0, 3, len(x), dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        for name, x in arrays.items()
    }


def milliseconds(decode: Decode, frame: bytes, tries: int) -> float:
    """Return the least CPU time of a decoding, be it refused or not."""
    times = []
    for _ in range(tries):
        start = time.process_time()
        with contextlib.suppress(CodecError):
            decode(frame)
        times.append(1000 * (time.process_time() - start))
    return min(times)


def worst(side: Side, arrays: Arrays) -> tuple[float, float, str]:
    """Return the milliseconds of the good frame and of the worst, and which that is."""
    both = [side.encode(arrays), side.encode(unlike_channels(arrays))]
    for frame in both:
        side.decode(frame)
    _, good = max((milliseconds(side.decode, frame, 5), frame) for frame in both)
    found = []
    for name, hostile in worst_frames(side.encode, arrays):
        times = [[milliseconds(side.decode, each, 1) for each in (good, hostile)]]
        if times[0][1] > 2 * times[0][0] + FLOOR / 2:
            times += [
                [milliseconds(side.decode, each, 1) for each in (good, hostile)]
                for _ in range(TRIES)
            ]
        least = np.min(times, axis=0)
        found.append((least[1] - TIMES * least[0], *least.tolist(), name))
    _, *told = max(found)
    return told[0], told[1], told[2]


def main() -> int:
    """Print a table, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="ids of codecs")
    parser.add_argument("--compact", action="store_true", help="only compact blocks")
    parser.add_argument("--layouts", nargs="*", default=list(SHAPES))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    above = 0
    print("| frame | reader |", " | ".join(args.layouts), "|")
    print("| --- | --- |", " ---: |" * len(args.layouts), sep="")
    for config in [*CONFIGS, *MODELS]:
        if args.only and config["id"] not in args.only:
            continue
        if args.compact and not config.get("compact"):
            continue
        rows: dict[str, list[str]] = {}
        for layout in args.layouts:
            arrays = arrays_of(SHAPES[layout], 1)
            for reader, side in readers(config, SHAPES[layout]).items():
                good, bad, name = worst(side, arrays)
                over = bad > TIMES * good + FLOOR
                above += over
                cell = f"{good:.1f} → {bad:.1f} {name}"
                rows.setdefault(reader, []).append(f"**{cell}**" if over else cell)
        for reader, cells in rows.items():
            print(f"| {json.dumps(config)} | {reader} |", " | ".join(cells), "|")
            sys.stdout.flush()
    print(f"\n{above} of them above {TIMES} times the good frame and {FLOOR:.0f} ms.\n")
    print(describe("python benchmarks/slow_frames.py", ("numpy", "zstandard")))
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
