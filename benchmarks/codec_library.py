"""Measure the codec library: `rotated` against theory, top-k selection, memory.

Writes a Markdown table. One thread: set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from flwr_caesar.codec import get_codec, list_codecs
from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.codec.quantisers.select import top_k

THEORY = {
    "unbiased": (0.5708, 0.1331, 0.03578, 0.009592),
    "least_squares": (0.3634, 0.1175, 0.03455, 0.009501),
}
MEMORY_CONFIGS: list[dict[str, Any]] = [
    {"id": "dense"},
    {"id": "cast"},
    {"id": "cast", "dtype": "bfloat16"},
    {"id": "topk", "density": 0.01},
    {"id": "topk", "density": 0.1},
    {"id": "topk", "density": 0.5},
    {"id": "ternary", "density": 0.1},
    {"id": "signs"},
    {"id": "qsgd", "levels": 1},
    {"id": "qsgd", "levels": 7},
    {"id": "prune", "prune_rate": 0.1},
    {"id": "prune", "prune_rate": 0.5},
    {"id": "caesar_model", "drop_fraction": 0.1},
    {"id": "caesar_model", "drop_fraction": 0.6},
    {"id": "rotated", "bits": 1},
    {"id": "rotated", "bits": 4},
    {"id": "quantized"},
    {"id": "quantized", "levels": "power_of_two"},
]


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the least CPU time of `repeats` runs: the box is shared."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that Python and numpy held at once during a call."""
    tracemalloc.start()
    try:
        result = call()
        del result
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def samples(n: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    return {
        "Gaussian": rng.standard_normal(n, np.float32),
        "Laplace": rng.laplace(0, 1, n).astype(np.float32),
        "log-normal": (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(
            np.float32
        ),
    }


def rotated_table(n: int, repeats: int) -> list[str]:
    lines = [
        "| bits | scale | data | NMSE | theory | off | encode MB/s | decode MB/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for bits in (1, 2, 3, 4):
        for scale, theory in THEORY.items():
            for kind, x in samples(n).items():
                codec = get_codec({"id": "rotated", "bits": bits, "scale": scale})
                frame, _ = codec.encode({"x": x})
                decoded = codec.decode(frame)[0]["x"].astype(np.float64)
                nmse = np.square(x - decoded).sum() / np.square(x, dtype=float).sum()
                off = nmse / theory[bits - 1] - 1
                row = f"| {bits} | {scale} | {kind} | {nmse:.5f} "
                row += f"| {theory[bits - 1]} | {off:+.2%} "
                if kind == "Gaussian":
                    encode = best_seconds(partial(codec.encode, {"x": x}), repeats)
                    decode = best_seconds(partial(codec.decode, frame), repeats)
                    row += f"| {x.nbytes / 1e6 / encode:.0f} "
                    row += f"| {x.nbytes / 1e6 / decode:.0f} |"
                else:
                    row += "| | |"
                lines.append(row)
    return lines


def plain_top_k(x: Array, k: int) -> Array:
    return np.sort(np.argpartition(np.abs(x), len(x) - k)[len(x) - k :])


def selection_table(n: int, repeats: int) -> list[str]:
    lines = [
        "| data | density | `top_k` MB/s | `argpartition` and sort MB/s |",
        "| --- | --- | --- | --- |",
    ]
    for kind, x in samples(n).items():
        for density in (0.01, 0.1):
            k = int(n * density)
            ours = best_seconds(partial(top_k, x, k), repeats)
            theirs = best_seconds(partial(plain_top_k, x, k), repeats)
            lines.append(
                f"| {kind} | {density} | {x.nbytes / 1e6 / ours:.0f} "
                f"| {x.nbytes / 1e6 / theirs:.0f} |"
            )
    return lines


def library_table(n: int, repeats: int) -> list[str]:
    """Every codec on Gaussian weights in 1,000-column matrices."""
    lines = [
        "| codec | bits/param | NMSE | encode MB/s | decode MB/s "
        "| encode peak | decode peak |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rng = np.random.default_rng(0)
    model = {
        f"layer{i}": rng.normal(0, 0.02 * (i + 1), (n // 4000, 1000)).astype(np.float32)
        for i in range(4)
    }
    size = sum(array.nbytes for array in model.values())
    energy = sum(np.square(a, dtype=float).sum() for a in model.values())
    for config in MEMORY_CONFIGS:
        codec = get_codec(config)
        frame, _ = codec.encode(model)
        decoded, _ = codec.decode(frame)
        error = sum(
            np.square(a.astype(float) - decoded[name]).sum()
            for name, a in model.items()
        )
        del decoded
        encode = best_seconds(partial(codec.encode, model), repeats)
        decode = best_seconds(partial(codec.decode, frame), repeats)
        peaks = [
            peak_bytes(partial(codec.encode, model)) + size,
            peak_bytes(partial(codec.decode, frame)) + len(frame),
        ]
        label = " ".join(f"{k}={v}" for k, v in config.items() if k != "id")
        lines.append(
            f"| `{config['id']}` {label} | {32 * len(frame) / size:.3f} "
            f"| {error / energy:.5f} | {size / 1e6 / encode:.0f} "
            f"| {size / 1e6 / decode:.0f} "
            f"| {peaks[0] / size:.2f} × | {peaks[1] / size:.2f} × |"
        )
    untested = set(list_codecs()) - {config["id"] for config in MEMORY_CONFIGS}
    if untested:
        lines += [
            "",
            f"Measured in [codecs.md](codecs.md): {', '.join(sorted(untested))}.",
        ]
    return lines


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 23, help="float32 values")
    parser.add_argument("--repeats", type=int, default=5, help="runs; the best counts")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    lines = [
        "# Codec library: speed, error and memory",
        "",
        f"{processor()}, one thread, shared with other work; Python "
        f"{platform.python_version()}, numpy {np.__version__}, zstandard "
        f"{zstandard.__version__}. {args.elements:,} float32 elements, best of "
        f"{args.repeats} runs; MB/s are 10^6 bytes of float32 a second of CPU time.",
        "",
        "    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python "
        f"benchmarks/codec_library.py {' '.join(sys.argv[1:])}".rstrip(),
        "",
        "## `rotated` against theory",
        "",
        "Theory: the distortion `D` of a Lloyd-Max quantiser of N(0, 1) for",
        "`least_squares`, `D / (1 - D)` for `unbiased`. Target: within 2 %, at least",
        "100 MB/s.",
        "",
        *rotated_table(args.elements, args.repeats),
        "",
        "## Exact top-k selection",
        "",
        "Target: at least 500 MB/s.",
        "",
        *selection_table(args.elements, args.repeats),
        "",
        "## Every codec on Gaussian weights",
        "",
        "Four layers of different scale. Peaks are what Python and numpy hold at",
        "once, by tracemalloc, as a multiple of the float32 model and **with** the",
        "caller's arrays (encode) or frame (decode). Target: at most 6 ×.",
        "",
        *library_table(args.elements, args.repeats),
        "",
    ]
    text = "\n".join(lines)
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
