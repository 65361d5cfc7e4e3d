"""Measure the codec `correlation` on recorded updates and print a Markdown page.

Updates come from ``benchmarks/record_updates.py``: each FOLDER holds ``round_NN.npz``
of one device. Errors are over the lossy tensors (float32, 1,024 elements or more)
only; bytes are whole frames. Encoder and decoder share nothing but the frames.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecState, ErrorFeedback, get_codec
from flwr_caesar.codec.codecs.correlation import CorrelationCodec
from flwr_caesar.codec.predictors.correlated_tensor import MODES

EXACT_BELOW = 1024
TARGET_NMSE = 0.5
NOISE = (0.0, 0.5, 1.0, 2.0)
HALVINGS = 8

Update = dict[str, Any]
Config = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What encoding all rounds of a device gave."""

    nbytes: int
    nmse: float
    nmse_of_sum: float
    modes: list[Counter[str]]
    encode_seconds: float
    decode_seconds: float


def lossy(update: Update) -> np.ndarray:
    parts = [a.ravel() for a in update.values() if is_lossy(a)]
    return np.concatenate(parts).astype(np.float64)


def is_lossy(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.size >= EXACT_BELOW


def measure(config: Config, updates: Sequence[Update], *, feedback: bool) -> Run:
    """Encode and decode every round; NMSE is of what the codec was given."""
    codec = get_codec(config)
    sender = ErrorFeedback(codec) if feedback else codec
    mine: CodecState | None = None
    theirs: CodecState | None = None
    nbytes = 0
    error = energy = 0.0
    total = sent = np.zeros(1)
    modes: list[Counter[str]] = []
    seconds = [0.0, 0.0]
    for update in updates:
        given = update
        if feedback and mine is not None:
            given = {k: a + mine.private.get(k, 0) for k, a in update.items()}
        start = time.process_time()
        frame, mine = sender.encode(update, mine)
        middle = time.process_time()
        decoded, theirs = codec.decode(frame, theirs)
        seconds[0] += middle - start
        seconds[1] += time.process_time() - middle
        x, xhat = lossy(given), lossy(decoded)
        error += float(np.square(x - xhat).sum())
        energy += float(np.square(x).sum())
        total, sent = total + lossy(update), sent + xhat
        nbytes += len(frame)
        if isinstance(codec, CorrelationCodec):
            modes.append(Counter())
            for name, mode in codec.modes(frame, theirs.layout).items():
                modes[-1][mode] += update[name].size
    missing = float(np.square(total - sent).sum() / np.square(total).sum())
    return Run(nbytes, error / energy, missing, modes, seconds[0], seconds[1])


def search(
    make: Callable[[float], Config],
    good: Callable[[Run], bool],
    updates: Sequence[Update],
    low: float,
    high: float,
    *,
    feedback: bool = False,
) -> tuple[Config, Run]:
    """Return the setting nearest to `low` that is good, as `high` must be."""
    best = make(high), measure(make(high), updates, feedback=feedback)
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        run = measure(make(middle), updates, feedback=feedback)
        if good(run):
            high, best = middle, (make(middle), run)
        else:
            low = middle
    return best


def most_bits(
    base: Config, bits: float, limit: int, updates: Sequence[Update]
) -> tuple[Config, Run]:
    """Return the most mean bits, near to `bits`, that take no more than `limit`."""

    def fits(run: Run) -> bool:
        return run.nbytes <= limit

    same = measure({**base, "bits": bits}, updates, feedback=False)
    low, high = (min(bits + 1, 8.0), bits) if fits(same) else (bits, max(bits - 1, 2.0))
    return search(lambda b: {**base, "bits": b}, fits, updates, low, high)


def allocation_rows(name: str, updates: Sequence[Update]) -> list[str]:
    """Share out bits in each way, with the most bits that fit the bytes of uniform."""
    rows = []
    for density in (0.01, 0.1, 1.0):
        for bits in (3.0, 4.0, 6.0):
            base = {"id": "correlation", "density": density}
            uniform = measure(
                {**base, "bits": bits, "allocation": "uniform"}, updates, feedback=False
            )
            cells = [f"{uniform.nbytes:,}", f"{uniform.nmse:.5f}"]
            for allocation in ("variance", "peak"):
                config, run = most_bits(
                    {**base, "allocation": allocation}, bits, uniform.nbytes, updates
                )
                cells += [f"{run.nbytes:,}", f"{config['bits']:.2f}"]
                cells += [f"{run.nmse / uniform.nmse - 1:+.1%}"]
            rows.append(f"| {name} | {density} | {bits:g} | {' | '.join(cells)} |")
    return rows


def peer_rows(name: str, updates: Sequence[Update]) -> list[str]:
    """Run `correlation`, and its peers at about its bytes."""
    rows = []
    for feedback in (False, True):
        ours = measure({"id": "correlation"}, updates, feedback=feedback)

        def fits(run: Run, limit: int = ours.nbytes) -> bool:
            return run.nbytes <= limit

        runs: list[tuple[Config, Run]] = [({"id": "correlation"}, ours)]
        config: Config = {"id": "correlation", "memory": False}
        runs.append((config, measure(config, updates, feedback=feedback)))
        for config, key in (
            ({"id": "topk"}, "density"),
            ({"id": "topk", "values": "float16"}, "density"),
            ({"id": "quantized", "bits": 6.0}, "density"),
            ({"id": "lattice"}, "rate"),
        ):
            runs.append(
                search(
                    lambda v, c=config, k=key: {**c, k: v},
                    fits,
                    updates,
                    1.0,
                    0.001 if key == "density" else 0.01,
                    feedback=feedback,
                )
            )
        n = sum(lossy(update).size for update in updates)
        for config, run in runs:
            rows.append(
                f"| {name} | {'yes' if feedback else 'no'} | {label(config)} "
                f"| {run.nbytes:,} | {8 * run.nbytes / n:.3f} | {run.nmse:.4f} "
                f"| {run.nmse_of_sum:.4f} "
                f"| {4 * n / run.encode_seconds / 1e6:.0f} "
                f"| {4 * n / run.decode_seconds / 1e6:.0f} |"
            )
    return rows


def label(config: Config) -> str:
    own = " ".join(
        f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}"
        for k, v in config.items()
        if k != "id"
    )
    return f"`{config['id']}` {own}".rstrip()


def mode_rows(name: str, updates: Sequence[Update]) -> list[str]:
    rows = []
    for feedback in (False, True):
        run = measure({"id": "correlation"}, updates, feedback=feedback)
        for number, modes in enumerate(run.modes, 1):
            shares = " | ".join(f"{modes[m] / modes.total():.0%}" for m in MODES)
            with_feedback = "yes" if feedback else "no"
            rows.append(f"| {name} | {with_feedback} | {number} | {shares} |")
    return rows


def privatised(
    updates: Sequence[Update], multiplier: float, *, per_element: bool
) -> list[Update]:
    """Clip to the median norm `C` and add Gaussian noise.

    The deviation of an element's noise is ``multiplier * C``, as the Gaussian mechanism
    has it, or that divided by the square root of the number of elements, so that the
    noise is `multiplier` times as long as the clipped update.
    """
    rng = np.random.default_rng(0)
    norms = [float(np.linalg.norm(lossy(update))) for update in updates]
    limit = float(np.median(norms))
    found = []
    for update, norm in zip(updates, norms, strict=True):
        deviation = multiplier * limit
        if not per_element:
            deviation /= lossy(update).size ** 0.5
        factor = min(1.0, limit / norm)
        found.append(
            {
                name: (a * factor + rng.normal(0, deviation, a.shape)).astype(
                    np.float32
                )
                if is_lossy(a)
                else a
                for name, a in update.items()
            }
        )
    return found


def privacy_rows(name: str, updates: Sequence[Update]) -> list[str]:
    rows = []
    cases = [(z, False) for z in NOISE] + [(1.0, True)]
    for multiplier, per_element in cases:
        noisy = privatised(updates, multiplier, per_element=per_element)
        cells = []
        for base in (
            {"id": "correlation"},
            {"id": "topk"},
            {"id": "quantized", "bits": 6.0},
        ):
            _, run = search(
                lambda d, b=base: {**b, "density": d},
                lambda run: run.nmse <= TARGET_NMSE,
                noisy,
                1e-4,
                1.0,
            )
            cells.append(run)
        cells.append(
            measure({"id": "lattice", "nmse": TARGET_NMSE}, noisy, feedback=False)
        )
        noise = f"{multiplier:g} C an element" if per_element else f"{multiplier:g} C"
        sizes = " | ".join(f"{run.nbytes:,}" for run in cells)
        rows.append(f"| {name} | {noise} | {sizes} |")
    return rows


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of round_NN.npz")
    parser.add_argument("--rounds", type=int, default=6, help="most rounds of each")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    models: dict[str, list[Update]] = {}
    for folder in args.folders:
        paths = sorted(folder.glob("round_*.npz"))[: args.rounds]
        models[folder.name] = [dict(np.load(path)) for path in paths]

    def each(rows: Callable[[str, Sequence[Update]], list[str]]) -> list[str]:
        return [row for name, updates in models.items() for row in rows(name, updates)]

    shown = " ".join(f"UPDATES/{folder.name}" for folder in args.folders)
    packages = ", ".join(f"{p} {version(p)}" for p in ("numpy", "zstandard"))
    lines = [
        "# `correlation` on recorded updates",
        "",
        f"{processor()}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s), shared "
        f"with other work; Python {platform.python_version()}, {packages}. Successive "
        f"updates of one device, {args.rounds} rounds at most.",
        "",
        "    python benchmarks/record_updates.py --folder UPDATES --model cnn",
        "    python benchmarks/record_updates.py --folder UPDATES --model resnet2m",
        f"    OMP_NUM_THREADS=1 python benchmarks/correlation.py {shown} "
        f"--rounds {args.rounds}",
        "",
        "NMSE is over lossy tensors (1,024 elements or more), all rounds together;",
        "bytes are all frames of all rounds, exact tensors and headers included. Where",
        "nothing is said, the codec has its defaults: density 0.01, 6 bits, memory on.",
        "",
        "## Beside its peers at equal bytes",
        "",
        "Peers get the largest density or rate at which they take no more bytes than",
        "`correlation`. `NMSE` is of what the codec was given, with error feedback the",
        "update and the residual; `of sum` that of the sum of all rounds.",
        "",
        "| updates | feedback | codec | bytes | bits/param | NMSE | of sum "
        "| encode MB/s | decode MB/s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *each(peer_rows),
        "",
        "## Which modes are chosen",
        "",
        "Share of lossy elements by mode of their tensor.",
        "",
        "| updates | feedback | round | "
        + " | ".join(mode.replace("_", " ") for mode in MODES)
        + " |",
        "| --- | --- | ---: |" + " ---: |" * len(MODES),
        *each(mode_rows),
        "",
        "## Bits by variance, by peak, and the same bits for all",
        "",
        '`allocation="uniform"` with the bits given; `"variance"` and `"peak"` with',
        "the most mean bits found at which they take no more bytes, and how their",
        "NMSE differs. No error feedback.",
        "",
        "| updates | density | bits | uniform: bytes | NMSE | variance: bytes | bits "
        "| NMSE | peak: bytes | bits | NMSE |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *each(allocation_rows),
        "",
        "## Differential privacy: bytes at equal error",
        "",
        "Bytes to send the clipped and noised update itself at an NMSE of "
        f"{TARGET_NMSE},",
        "without error feedback (a residual would re-enter after clipping). `C` is the",
        "clipping norm, the median norm of the updates. The first rows' noise has the",
        "given length in units of `C` (deviation `z C / sqrt(n)` an element); the last",
        "has the deviation `C` for every element, the Gaussian mechanism of one device",
        "alone, of which nothing but noise remains.",
        "",
        "| updates | noise | `correlation` | `topk` | `quantized` 6 bits | `lattice` |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *each(privacy_rows),
        "",
    ]
    text = "\n".join(lines)
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
