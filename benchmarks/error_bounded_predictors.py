"""What each predictor of `error_bounded` is worth, on updates that were recorded.

Codes successive updates of one device, recorded by ``benchmarks/record_updates.py``,
with each setting of the codec's `predictor`; every other part of the codec is the same.
Bytes are those of whole frames, from the second round on, relative to ``"none"``, which
still has last round's magnitudes as contexts. Prints a Markdown table.

A magnitude alone is no prediction: it needs a sign. The row of the paper's magnitude
therefore sends one of each element of a convolution, in one bit; its bytes are computed
by the ideal length of the indices, not sent, and relative to the same of ``"none"``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe

from flwr_caesar.codec import CodecState
from flwr_caesar.codec.codecs.error_bounded import ErrorBoundedCodec
from flwr_caesar.codec.coding.contexts import (
    as_channels,
    context_bits,
    fit_scales,
    scale_classes,
)
from flwr_caesar.codec.contract.bounds import error_over_bound
from flwr_caesar.codec.predictors.predict import MIN_KERNEL
from flwr_caesar.codec.predictors.published import statistics
from flwr_caesar.codec.quantisers.quantise import bounded_step, quantise_bounded

Update = dict[str, np.ndarray[Any, Any]]

ROWS = (
    ("none", "none"),
    ("paper_kernels", "paper: + kernel signs"),
    ("paper", "paper: + oscillation"),
    ("signed", "signed multiple of the last update"),
    ("auto", "ours, chosen"),
    ("all", "ours and the paper's, chosen"),
)
MAGNITUDE = "paper: magnitude, a sign each"


def sizes(rounds: list[Update], rel: float, predictor: str) -> list[int]:
    """Return the bytes of each round's frame; every element is checked."""
    codec = ErrorBoundedCodec(rel=rel, predictor=predictor)
    sent: CodecState | None = None
    received: CodecState | None = None
    found = []
    for update in rounds:
        frame, sent = codec.encode(update, sent)
        decoded, received = codec.decode(frame, received)
        assert (error_over_bound(codec, update, decoded) or 0) <= 1
        found.append(len(frame))
    return found


def magnitude_bits(rounds: list[Update], rel: float) -> tuple[float, float]:
    """Return ideal bits without prediction, and with the paper's magnitudes."""
    codec = ErrorBoundedCodec(rel=rel, predictor="paper_kernels")
    state: CodecState | None = None
    plain = predicted = 0.0
    for update in rounds:
        bounds = codec.error_bound(update)
        memory: Mapping[str, Any] = state.arrays if state else {}
        for name, array in update.items():
            if f"scores/{name}" not in memory:
                continue
            shape = as_channels(array.shape)
            x, bound = array.reshape(shape), float(bounds[name])
            alone = _bits(x, np.zeros_like(x), bound)
            plain += alone
            if shape[2] < MIN_KERNEL or shape[0] * shape[1] < 2:
                predicted += alone
                continue
            mean, deviation = statistics(x)
            scores = memory[f"scores/{name}"].reshape(shape)
            size = np.abs(scores * deviation + mean)
            predicted += _bits(x, np.copysign(size, x), bound) + x.size
        _, state = codec.encode(update, state)
    return plain, predicted


def _bits(x: Any, prediction: Any, bound: float) -> float:
    step = bounded_step(bound)
    if not step:
        return 0.0
    indices, _, _ = quantise_bounded(x, prediction, step, bound)
    scales = fit_scales(x - prediction, step)
    return float(context_bits(indices, scale_classes(scales, x.shape)))


def read(folder: Path) -> list[Update]:
    """Return the recorded rounds of a folder, in order."""
    return [dict(np.load(path)) for path in sorted(folder.glob("round_*.npz"))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("updates", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--rel", type=float, nargs="+", default=[1e-3, 1e-2, 3e-2])
    args = parser.parse_args()
    columns: list[list[str]] = []
    heads = []
    for told in args.updates:
        name, _, folder = told.partition("=")
        rounds = read(Path(folder))
        raw = sum(array.nbytes for update in rounds[1:] for array in update.values())
        for rel in args.rel:
            heads.append(f"{name}, {rel:g}")
            plain, predicted = magnitude_bits(rounds, rel)
            cells = [f"{plain / predicted:.3f}" if predicted else "–"]
            alone = 0
            for predictor, _ in ROWS:
                sent = sum(sizes(rounds, rel, predictor)[1:])
                alone = alone or sent
                cells.append(f"{alone / sent:.3f}")
            columns.append([f"{raw / alone:.2f}", *cells])
            print(heads[-1], columns[-1], flush=True)
    print(f"\n| predictor | {' | '.join(heads)} |")
    print(f"| --- |{' ---: |' * len(heads)}")
    names = ["float32 over none", MAGNITUDE, *(label for _, label in ROWS)]
    for label, cells in zip(names, zip(*columns, strict=True), strict=True):
        print(f"| {label} | {' | '.join(cells)} |")
    print(f"\n{describe('python benchmarks/error_bounded_predictors.py …')}")


if __name__ == "__main__":
    main()
