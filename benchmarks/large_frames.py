"""Frames of more elements than one entropy-coded stream holds, exactly decoded.

140 million elements in one tensor: what a device encodes and a server decodes of an
update, and a published model, whole and as a change. Each case is a process of its own;
its memory is the kernel's high-water mark less what was resident with the input. Writes
docs/benchmarks/large-frames.md.

    python benchmarks/large_frames.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe

from flwr_caesar.codec import CodecState, Layout, get_codec
from flwr_caesar.codec.published.lattice_model import (
    decode_model,
    encode_model,
    publish_model,
)

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-frames.md"
ROWS, COLUMNS = 35_000, 4_000
UPLOADS: dict[str, dict[str, Any]] = {
    "`lattice`, nmse 0.2": {"id": "lattice", "nmse": 0.2, "dead_zone": 0.5},
    "`topk`, density 0.01": {"id": "topk", "density": 0.01, "values": "float16"},
    "`error_bounded`, 3e-4": {"id": "error_bounded", "abs_bound": 3e-4},
    "`qsgd`, 16 levels": {"id": "qsgd", "levels": 16},
}
PUBLISHED = {"published, whole": False, "published, a change": True}
MEGABYTE = 1e6


def drawn(rows: int, seed: int, scale: float) -> dict[str, Any]:
    """Return a tensor whose rows have scales of their own."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((rows, COLUMNS), np.float32)
    found *= rng.uniform(0.5, 2, (rows, 1)).astype(np.float32) * np.float32(scale)
    return {"weight": found}


def resident() -> float:
    """Return the bytes that are resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what work returns, its CPU seconds, and its peak above what was there."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    start = time.process_time()
    found = work()
    seconds = time.process_time() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))
    return found, {"seconds": seconds, "peak": peak - before}


def upload(name: str, rows: int) -> dict[str, Any]:
    """Return what an update costs."""
    update = drawn(rows, 1, 1e-3)
    codec, state = get_codec(UPLOADS[name]), CodecState(Layout.of(update))
    (frame, decoded, _), writing = timed(lambda: codec.encode_decoded(update, state))
    (found, _), reading = timed(lambda: codec.decode(frame, state))
    is_exact = found["weight"].tobytes() == decoded["weight"].tobytes()
    return {"bytes": len(frame), "write": writing, "read": reading, "exact": is_exact}


def published(*, change: bool, rows: int) -> dict[str, Any]:
    """Return what a published model costs."""
    model = drawn(rows, 0, 0.05)
    base = publish_model(model, None, -11) if change else None
    if change:
        model["weight"] += drawn(rows, 1, 1e-3)["weight"]
    exponent = -10 if change else -11
    point, publishing = timed(partial(publish_model, model, base, exponent))
    frame, writing = timed(partial(encode_model, point, base))
    held = base.arrays() if base is not None else None
    del model, base
    found, reading = timed(partial(decode_model, frame, held))
    is_exact = bool((found["weight"] == point.arrays()["weight"]).all())
    writing["seconds"] += publishing["seconds"]
    writing["peak"] = max(writing["peak"], publishing["peak"])
    return {"bytes": len(frame), "write": writing, "read": reading, "exact": is_exact}


def row(name: str, rows: int) -> str:
    """Return a line of the table, measured by a process of its own."""
    command = [sys.executable, __file__, "--case", name, "--rows", str(rows)]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(made.stdout)
    if not found["exact"]:
        raise SystemExit(f"{name}: decoded otherwise than encoded")
    n = rows * COLUMNS
    cells = [name, f"{found['bytes'] / MEGABYTE:.1f}", f"{8 * found['bytes'] / n:.3f}"]
    for side in ("write", "read"):
        cells.append(f"{found[side]['seconds']:.1f}")
        cells.append(f"{found[side]['peak'] / (4 * n):.1f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="others write no table")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case in UPLOADS:
        print(json.dumps(upload(args.case, args.rows)))
        return
    if args.case:
        print(json.dumps(published(change=PUBLISHED[args.case], rows=args.rows)))
        return
    lines = []
    for name in (*UPLOADS, *PUBLISHED):
        lines.append(row(name, args.rows))
        print(lines[-1], flush=True)
    if args.rows == ROWS:
        TABLE.write_text(page("\n".join(lines)))


def page(lines: str) -> str:
    """Return the page."""
    return f"""# Frames of {ROWS * COLUMNS / 1e6:.0f} million elements

One float32 tensor of {ROWS:,} × {COLUMNS:,}, {4 * ROWS * COLUMNS / MEGABYTE:.0f} MB,
more than the 134,215,680 elements that one entropy-coded stream holds. Megabytes and
bits an element of the frame; CPU seconds and peak memory of who writes it and who
reads it, in multiples of the tensor, beside what it was given: the update, or the
model, and for a change the base. An update's writer also learns what is decoded; a
model's writer also publishes it. Each frame decoded to the bit.

| frame | MB | bits | write, s | write, models | read, s | read, models |
| --- | --: | --: | --: | --: | --: | --: |
{lines}

{describe("python benchmarks/large_frames.py")}
"""


if __name__ == "__main__":
    main()
