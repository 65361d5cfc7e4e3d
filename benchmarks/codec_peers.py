"""Measure `error_bounded` and `lattice` beside SZ3 and NNCodec; print markdown tables.

A peer that is not installed is named as absent, with the line that installs it. Updates
come from ``benchmarks/record_updates.py``: each FOLDER holds ``round_NN.npz`` of one
device. What all have to send is counted: whole frames of all tensors, from the second
round on. One process, one thread.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe

from flwr_caesar.codec import Codec, CodecError, CodecState, Layout, get_codec
from flwr_caesar.codec_bench import Measurement, measure
from flwr_caesar.codec_peers import PEERS, Peer, get_peer

BOUNDS = (1e-3, 1e-2, 1e-1)
ERRORS = (0.05, 0.2, 0.5)
RANK = 16

Update = dict[str, np.ndarray[Any, Any]]


@cache
def missing(name: str) -> str:
    """Return why a peer cannot be measured; empty if it can."""
    try:
        get_peer(name, {}, Layout.of({}))
    except CodecError as err:
        return str(err)
    return ""


def later(codec: Codec | Peer, rounds: Sequence[Update]) -> list[Measurement]:
    """Return what the rounds but the first cost."""
    return measure(codec, rounds)[0][1:]


def peer_rounds(
    name: str, settings: dict[str, Any], rounds: Sequence[Update]
) -> list[Measurement]:
    """Return what they cost a peer; nothing if it is absent."""
    if missing(name):
        return []
    return later(get_peer(name, settings, Layout.of(rounds[0])), rounds)


def total(measured: Sequence[Measurement]) -> int:
    return sum(m.bytes for m in measured)


def worst(measured: Sequence[Measurement]) -> float:
    return max((m.max_error_over_bound or 0.0 for m in measured), default=0.0)


def cell(value: float, form: str) -> str:
    return form.format(value) if value else "–"


def bounded_rows(label: str, rounds: Sequence[Update]) -> list[str]:
    """One element bound for all: bytes before over bytes sent."""
    rows = []
    nbytes = Layout.of(rounds[0]).nbytes * (len(rounds) - 1)
    for rel in BOUNDS:
        config = {"id": "error_bounded", "rel": rel}
        plain = later(get_codec(config), rounds)
        compact = later(get_codec({**config, "compact": True}), rounds)
        ours = later(get_codec({**config, "compact": True, "rank": RANK}), rounds)
        theirs = [
            peer_rounds("sz3", {"rel": rel}, rounds),
            peer_rounds("nncodec", {"rel": rel, "temporal": False}, rounds),
            peer_rounds("nncodec", {"rel": rel}, rounds),
        ]
        found = plain, compact, ours, *theirs
        ratios = [nbytes / total(each) if each else 0.0 for each in found]
        best = max(ratios[3:])
        shares = [ratios[2] / other if other else 0.0 for other in (best, ratios[-1])]
        over = max(map(worst, found))
        columns = [cell(ratio, "{:.2f}") for ratio in ratios]
        columns += [cell(share, "**{:.3f}**") for share in shares]
        rows.append(f"| {label} | {rel:g} | {' | '.join(columns)} | {over:.4f} |")
    return rows


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compact": {"compact": True},
    "memory": {"compact": True, "memory": True},
    "products": {"compact": True, "rank": RANK},
}


def lattice_rows(label: str, rounds: Sequence[Update]) -> list[str]:
    """One squared error of the tensors that are lossy for all: bytes."""
    rows = []
    for target in ERRORS:
        errors: list[float] = []
        ours = [
            lattice_bytes({"nmse": target, **form}, rounds, errors)
            for form in FORMS.values()
        ]
        nmse = round(float(np.mean(errors)), 5)
        theirs = [
            total(peer_rounds("nncodec", {"nmse": nmse, "temporal": t}, rounds))
            for t in (False, True)
        ]
        columns = [cell(size, "{:,}") for size in (*ours, *theirs)]
        for own, size in zip(ours[1:], (*theirs, theirs[-1]), strict=True):
            columns.append(cell(own / size if size else 0.0, "**{:.3f}**"))
        rows.append(f"| {label} | {nmse:.3f} | {' | '.join(columns)} |")
    return rows


def lattice_bytes(
    settings: dict[str, Any], rounds: Sequence[Update], errors: list[float]
) -> int:
    """Return the bytes of the rounds but the first, and append their errors."""
    codec = get_codec({"id": "lattice", "exact_below": 1024, **settings})
    state = CodecState(Layout.of(rounds[0]))
    sent = 0
    for number, update in enumerate(rounds):
        frame, decoded, state = codec.encode_decoded(update, state)
        if number:
            sent += len(frame)
            errors.append(lossy_error(update, decoded))
    return sent


def lossy_error(update: Update, decoded: Update) -> float:
    """Return the relative squared error of the large tensors."""
    names = [n for n, x in update.items() if x.dtype == np.float32 and x.size >= 1024]
    lost = sum(float(np.square(update[n] - decoded[n]).sum()) for n in names)
    return lost / sum(float(np.square(update[n]).sum()) for n in names)


def synthetic(rng: np.random.Generator) -> list[Update]:
    """Return rounds without any relation."""
    return [{"w": rng.laplace(size=(512, 512)).astype("f4")} for _ in range(3)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", metavar="LABEL=FOLDER", help="recorded updates"
    )
    args = parser.parse_args()
    os.nice(5)
    data = {"i.i.d. Laplace": synthetic(np.random.default_rng(1))}
    for item in args.folders:
        label, _, folder = item.partition("=")
        files = sorted(Path(folder).glob("round_*.npz"))
        data[label] = [dict(np.load(file)) for file in files]
    print(describe("python benchmarks/codec_peers.py", ("numpy", "pysz", "nncodec")))
    for name in PEERS:
        if missing(name):
            print(f"\nAbsent: {missing(name)}")
    print("\n| updates | REL | error_bounded | compact | products | SZ3 best ", end="")
    print("| NNCodec | NNCodec, temporal | products / best peer ", end="")
    print("| products / temporal | worst error / bound |")
    print("|---|" + "--:|" * 10)
    for label, rounds in data.items():
        print("\n".join(bounded_rows(label, rounds)), flush=True)
    print(
        "\n| updates | NMSE | lattice, bytes | compact | with memory | products ",
        end="",
    )
    print(
        "| NNCodec | NNCodec, temporal | compact / NNCodec | memory / temporal ", end=""
    )
    print("| products / temporal |")
    print("|---|" + "--:|" * 10)
    for label, rounds in data.items():
        print("\n".join(lattice_rows(label, rounds)), flush=True)


if __name__ == "__main__":
    main()
