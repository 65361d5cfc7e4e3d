"""Time to send updates within a bound: `error_bounded`, SZ3 and nothing at all.

Codes successive updates of one device, recorded by ``benchmarks/record_updates.py``,
with `error_bounded` (with and without its history) and with SZ3 through pysz (its
default, and the best of its modes, each with tensors in their shape and flat), all in
this one process on one thread. The time of a transfer is bytes over the link's rate and
the seconds of encoding and decoding that were measured; decoders are separate from
encoders, and every element is checked against
its bound. Counted from the second
round on.

Needs the peer: ``pip install pysz``. Prints two markdown tables; ``--picture FILE``
draws the second.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from codec_table import lossy_names, sz_modes
from environment import describe

from flwr_caesar.codec import CodecState, get_codec
from flwr_caesar.codec.codecs.error_bounded import ErrorBoundedCodec
from flwr_caesar.codec.contract.bounds import error_over_bound

BOUNDS = (1e-3, 1e-2, 3e-2, 1e-1)
MBITS = (1, 10, 100)
OURS, ALONE, DEFAULT, BEST = "ours", "ours, no history", "SZ3 default", "SZ3 best mode"

Update = dict[str, np.ndarray[Any, Any]]


@dataclass
class Cost:
    """Bytes, and CPU seconds of encoding and decoding, of a number of rounds."""

    bytes: int = 0
    encode: float = 0.0
    decode: float = 0.0
    worst: float = 0.0
    mode: str = ""

    @property
    def codec(self) -> float:
        """Seconds of both sides."""
        return self.encode + self.decode

    def seconds(self, mbits: float) -> float:
        """Seconds over a link of so many megabits a second."""
        return 8 * self.bytes / (mbits * 1e6) + self.codec


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def our_cost(rounds: list[Update], rel: float, *, history: bool) -> Cost:
    codec = ErrorBoundedCodec(rel=rel)
    sent: CodecState | None = None
    received: CodecState | None = None
    cost = Cost()
    for t, update in enumerate(rounds):
        before = sent, received
        (frame, sent), encode = timed(lambda u=update, s=before[0]: codec.encode(u, s))
        (decoded, received), decode = timed(
            lambda f=frame, r=before[1]: codec.decode(f, r)
        )
        cost.worst = max(cost.worst, error_over_bound(codec, update, decoded) or 0.0)
        if not history:  # as who knows the tensors and nothing else
            sent = received = CodecState(sent.layout)
        if t:
            cost.bytes += len(frame)
            cost.encode += encode
            cost.decode += decode
    return cost


def sz_cost(
    rounds: list[Update], rel: float, algorithm: int | None, *, flat: bool
) -> Cost:
    from pysz import sz, szConfig, szErrorBoundMode

    config = szConfig()
    config.errorBoundMode = szErrorBoundMode.REL
    config.relErrorBound = rel
    if algorithm is not None:
        config.cmprAlgo = algorithm
    dense = get_codec("dense")
    cost = Cost()
    for update in rounds[1:]:
        names = lossy_names(update)
        small = {name: x for name, x in update.items() if name not in names}
        (frame, _), encode = timed(lambda s=small: dense.encode(s))
        _, decode = timed(lambda f=frame: dense.decode(f))
        cost.bytes += len(frame)
        for name in names:
            x = np.ascontiguousarray(update[name])
            x = x.reshape(-1) if flat else x
            (packed, _), more = timed(lambda x=x: sz.compress(x, config))
            encode += more
            (y, _), more = timed(
                lambda p=packed, s=x.shape: sz.decompress(p, np.float32, s)
            )
            decode += more
            cost.bytes += len(packed)
            error = float(np.abs(x.astype(np.float64) - y).max())
            bound = rel * (float(x.max()) - float(x.min()))
            cost.worst = max(cost.worst, error / bound if bound else 0.0)
        cost.encode += encode
        cost.decode += decode
    return cost


def costs(rounds: list[Update], rel: float) -> dict[str, Cost]:
    """Return what each way of coding rounds costs."""
    modes = {
        f"{mode}{' flat' if flat else ''}": sz_cost(rounds, rel, algorithm, flat=flat)
        for mode, algorithm in sz_modes().items()
        for flat in (False, True)
    }
    best = min(modes, key=lambda mode: modes[mode].bytes)
    modes[best].mode = best
    return {
        OURS: our_cost(rounds, rel, history=True),
        ALONE: our_cost(rounds, rel, history=False),
        DEFAULT: modes["default"],
        BEST: modes[best],
    }


def ratio_row(label: str, rel: float, raw: int, found: dict[str, Cost]) -> str:
    ours, best = found[OURS], found[BEST]
    ratios = [f"{raw / found[name].bytes:.2f}" for name in (OURS, ALONE, DEFAULT)]
    speeds = [
        f"{raw / c.encode / 1e6:.0f} / {raw / c.decode / 1e6:.0f}"
        for c in (ours, found[DEFAULT])
    ]
    return (
        f"| {label} | {rel:g} | {' | '.join(ratios)} | "
        f"{raw / best.bytes:.2f} ({best.mode}) | "
        f"**{found[DEFAULT].bytes / ours.bytes:.2f}** | "
        f"**{best.bytes / ours.bytes:.2f}** | {ours.worst:.4f} | {' | '.join(speeds)} |"
    )


def time_rows(
    label: str, rel: float, raw: int, count: int, found: dict[str, Cost]
) -> list[str]:
    rows = []
    for mbits in MBITS:
        plain = 8 * raw / (mbits * 1e6)
        seconds = [found[name].seconds(mbits) for name in (DEFAULT, ALONE, OURS)]
        cells = [f"{s / count:.3g} s ({s / plain - 1:+.1%})" for s in seconds]
        share = found[OURS].codec / found[OURS].seconds(mbits)
        rows.append(
            f"| {label} | {rel:g} | {mbits} | {plain / count:.3g} s | "
            f"{' | '.join(cells)} | {share:.0%} |"
        )
    return rows


def draw(savings: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Draw the time saved at each link's rate, a panel for each set of updates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(savings), figsize=(4.5 * len(savings), 3.6), sharey=True, squeeze=False
    )
    for axis, (label, lines) in zip(axes[0], savings.items(), strict=True):
        for name, values in lines.items():
            who, _, rel = name.rpartition(", ")
            axis.plot(
                MBITS,
                values,
                marker="o",
                label=name,
                color=f"C{BOUNDS.index(float(rel))}",
                linestyle="-" if who == OURS else "--",
            )
        axis.set_xscale("log")
        axis.set_xticks(MBITS, [str(mbits) for mbits in MBITS])
        axis.set_xlabel("link, Mbit/s")
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("time saved against float32, %")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", metavar="LABEL=FOLDER", help="recorded updates"
    )
    parser.add_argument("--picture", type=Path, help="draw the times to this file")
    args = parser.parse_args()
    os.nice(5)
    ratios: list[str] = []
    times: list[str] = []
    savings: dict[str, dict[str, list[float]]] = {}
    for item in args.folders:
        label, _, folder = item.partition("=")
        rounds = [dict(np.load(f)) for f in sorted(Path(folder).glob("round_*.npz"))]
        count = len(rounds) - 1
        raw = count * sum(x.nbytes for x in rounds[0].values())
        lines = savings.setdefault(label, {})
        for rel in BOUNDS:
            found = costs(rounds, rel)
            ratios.append(ratio_row(label, rel, raw, found))
            times += time_rows(label, rel, raw, count, found)
            for name in (OURS, DEFAULT):
                lines[f"{name}, {rel:g}"] = [
                    100 * (1 - found[name].seconds(m) / (8 * raw / (m * 1e6)))
                    for m in MBITS
                ]
    print(
        "| updates | REL | ours | ours, no history | SZ3 default | best SZ3 | ", end=""
    )
    print("ours / default | ours / best | max error / bound | ", end="")
    print("ours, MB/s encode / decode | SZ3 default, MB/s |")
    print("|" + "---|" * 11)
    print("\n".join(ratios))
    print("\n| updates | REL | Mbit/s | float32 | SZ3 default | ", end="")
    print("ours, no history | ours | of it codec |")
    print("|" + "---|" * 8)
    print("\n".join(times))
    command = "python benchmarks/error_bounded_transfer.py LABEL=FOLDER …"
    print("\n" + describe(command, ("numpy", "zstandard", "pysz")))
    if args.picture:
        draw(savings, args.picture)


if __name__ == "__main__":
    main()
