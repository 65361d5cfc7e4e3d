"""Measure the symbol codecs beside their peers and print a markdown table.

Needs the peers: ``pip install constriction pysz``. Updates come from
``benchmarks/record_updates.py``: each FOLDER holds ``round_NN.npz`` of one device.
Everything that is compared runs in this one process, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecState, ErrorFeedback, get_codec
from flwr_caesar.codec.coding.counts import count_symbols, entropy_bits
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols

BOUNDS = (1e-3, 3e-3, 1e-2, 3e-2)
EXACT_BELOW = 1024


def best_seconds(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def our_seconds(
    symbols: np.ndarray, context: np.ndarray, contexts: int, repeats: int
) -> list[float]:
    data = encode_symbols(symbols, context, contexts)
    return [
        best_seconds(lambda: encode_symbols(symbols, context, contexts), repeats),
        best_seconds(lambda: decode_symbols(data, context, contexts), repeats),
    ]


def peer_seconds(symbols: np.ndarray, repeats: int) -> list[float]:
    import constriction

    stack, models = constriction.stream.stack, constriction.stream.model
    shares = np.bincount(symbols) / len(symbols)
    model = models.Categorical(shares, perfect=False)
    wide = symbols.astype(np.int32)

    def encode() -> Any:
        coder = stack.AnsCoder()
        coder.encode_reverse(wide, model)
        return coder.get_compressed()

    packed = encode()
    return [
        best_seconds(encode, repeats),
        best_seconds(
            lambda: stack.AnsCoder(packed).decode(model, len(symbols)), repeats
        ),
    ]


def rans_rows(repeats: int) -> list[str]:
    rows = []
    rng = np.random.default_rng(0)
    for n in (10**6, 4 * 10**6):
        for scale in (0.3, 0.6, 1.2, 5.0):
            values = np.rint(rng.laplace(size=n) * scale).astype(np.int64)
            symbols = np.where(values >= 0, 2 * values, -2 * values - 1)
            symbols = symbols.astype(np.uint16)
            for contexts in (1, 16):
                context = rng.integers(0, contexts, n).astype(np.uint8)
                bits = entropy_bits(count_symbols(symbols, context, contexts))
                size = len(encode_symbols(symbols, context, contexts))
                seconds = our_seconds(symbols, context, contexts, repeats)
                if contexts == 1:
                    seconds += peer_seconds(symbols, repeats)
                columns = [f"{4 * n / s / 1e6:.0f}" for s in seconds]
                columns += ["–"] * (4 - len(columns))
                rows.append(
                    f"| {n:,} | {contexts} | {bits / n:.2f} | "
                    f"{8 * size / bits - 1:.2%} | {' | '.join(columns)} |"
                )
    return rows


def lossy_names(update: dict[str, np.ndarray]) -> list[str]:
    return [
        name
        for name, x in update.items()
        if x.dtype == np.float32 and x.size >= EXACT_BELOW
    ]


def sz_modes() -> dict[str, int | None]:
    from pysz import szAlgorithm

    names = ("LORENZO_REG", "INTERP_LORENZO", "INTERP", "NOPRED")
    return {"default": None, **{n: getattr(szAlgorithm, n) for n in names}}


def sz_bytes(x: np.ndarray, rel: float, algorithm: int | None) -> int:
    from pysz import sz, szConfig, szErrorBoundMode

    config = szConfig()
    config.errorBoundMode = szErrorBoundMode.REL
    config.relErrorBound = rel
    if algorithm is not None:
        config.cmprAlgo = algorithm
    return len(sz.compress(np.ascontiguousarray(x), config)[0])


def bounded_rows(label: str, rounds: list[dict[str, np.ndarray]]) -> list[str]:
    rows = []
    dense = get_codec("dense")
    for rel in BOUNDS:
        codec = get_codec({"id": "error_bounded", "rel": rel})
        sent = received = None
        ours = original = 0
        seconds = [0.0, 0.0]
        peers: dict[str, int] = {}
        worst = 0.0
        for t, update in enumerate(rounds):
            start = time.perf_counter()
            frame, sent = codec.encode(update, sent)
            seconds[0] += time.perf_counter() - start
            start = time.perf_counter()
            decoded, received = codec.decode(frame, received)
            seconds[1] += time.perf_counter() - start
            assert sent.digest == received.digest
            lossy = lossy_names(update)
            for name in lossy:
                bound = rel * (float(update[name].max()) - float(update[name].min()))
                error = np.abs(update[name].astype(np.float64) - decoded[name]).max()
                worst = max(worst, error / bound if bound else float(error > 0))
            if t == 0:
                continue
            ours += len(frame)
            original += sum(x.nbytes for x in update.values())
            small = {k: x for k, x in update.items() if k not in lossy}
            exact = len(dense.encode(small)[0])
            for mode, algorithm in sz_modes().items():
                for flat in (False, True):
                    key = f"{mode}{' flat' if flat else ''}"
                    size = exact + sum(
                        sz_bytes(
                            update[k].reshape(-1) if flat else update[k], rel, algorithm
                        )
                        for k in lossy
                    )
                    peers[key] = peers.get(key, 0) + size
        best = min(peers, key=lambda key: peers[key])
        total = original * len(rounds) / (len(rounds) - 1) / 1e6
        rows.append(
            f"| {label} | {rel:g} | {original / ours:.2f} | "
            f"{original / peers[best]:.2f} ({best}) | "
            f"{original / peers['default']:.2f} | **{peers[best] / ours:.3f}** | "
            f"{peers['default'] / ours:.3f} | {worst:.4f} | "
            f"{total / seconds[0]:.0f} / {total / seconds[1]:.0f} |"
        )
    return rows


def error_of(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> float:
    names = lossy_names(x)
    lost = sum(float(np.square(x[k] - y[k], dtype=np.float64).sum()) for k in names)
    whole = sum(float(np.square(x[k], dtype=np.float64).sum()) for k in names)
    return lost / whole


def lattice_rows(label: str, rounds: list[dict[str, np.ndarray]]) -> list[str]:
    """Each round's input of top-k under error feedback, coded by both at one error."""
    topk = ErrorFeedback(get_codec({"id": "topk", "density": 0.1}))
    state: CodecState | None = None
    theirs = ours = 0
    errors: list[tuple[float, float]] = []
    for update in rounds:
        left = state.private if state else {}
        total = {k: x + left[k] if k in left else x for k, x in update.items()}
        frame, after = topk.encode(update, state)
        decoded, _ = topk.decode(frame, state or CodecState(after.layout))
        state = after
        error = error_of(total, decoded)
        lattice = get_codec({"id": "lattice", "nmse": round(error, 4)})
        mine, _ = lattice.encode(total)
        theirs += len(frame)
        ours += len(mine)
        errors.append((error, error_of(total, lattice.decode(mine)[0])))
    mean = np.mean(errors, axis=0)
    return [
        f"| {label} | {mean[0]:.3f} | {theirs:,} | {mean[1]:.3f} | {ours:,} | "
        f"{ours / theirs:.3f} |"
    ]


def ideal_error(x: np.ndarray, rate: float) -> float:
    """Error of the best dead-zone quantiser with centroids at an order-0 entropy."""
    magnitude, best = np.abs(x), 1.0
    for step in x.std() * 2.0 ** np.arange(-1.5, 1.8, 0.125):
        low, high = 0.4, 1.2
        for _ in range(14):
            zone = (low + high) / 2
            q = np.floor(magnitude / step + 1 - zone).clip(0) * np.sign(x)
            counts = np.unique(q, return_counts=True)[1]
            bits = float(-(counts / len(q) * np.log2(counts / len(q))).sum())
            low, high = (zone, high) if bits > rate else (low, zone)
        if abs(bits - rate) > 0.01:
            continue
        _, index = np.unique(q, return_inverse=True)
        centroids = np.bincount(index, x) / np.bincount(index)
        error = float(np.square(x - centroids[index]).sum() / np.square(x).sum())
        best = min(best, error)
    return best


def ideal_rows() -> list[str]:
    rng = np.random.default_rng(0)
    n = 1_000_000
    sources = {
        "Gaussian": rng.normal(size=n),
        "Laplace": rng.laplace(size=n),
        "heavy tail (GGD 0.5)": rng.gamma(2.0, 1.0, n) ** 2 * rng.choice([-1, 1], n),
    }
    rows = []
    codec = get_codec({"id": "lattice", "rate": 1.0})
    for label, x in sources.items():
        for scale in (1.0, 1.4):
            update = {"w": (scale * x).astype(np.float32).reshape(1000, 1000)}
            frame, _ = codec.encode(update)
            bits = 8 * len(frame) / n
            error = error_of(update, codec.decode(frame)[0])
            ideal = ideal_error(update["w"].reshape(-1)[:300_000].astype(float), 1.0)
            rows.append(
                f"| {label} × {scale} | {bits:.3f} | {error:.4f} | {ideal:.4f} | "
                f"{error / ideal:.3f} |"
            )
    return rows


def synthetic_rounds(kind: str) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    rounds = []
    for _ in range(3):
        x = rng.laplace(size=(512, 2048)) if kind == "Laplace" else None
        x = rng.normal(size=(512, 2048)) if x is None else x
        rounds.append({"w": x.astype(np.float32)})
    return rounds


def memory_rows() -> list[str]:
    """Peaks of the third of three correlated rounds, over the float32 model."""
    rows = []
    for config in (
        *({"id": "error_bounded", "rel": rel} for rel in (1e-4, *BOUNDS)),
        *({"id": "lattice", "rate": rate} for rate in (1.0, 4.0)),
    ):
        codec = get_codec(config)
        rng = np.random.default_rng(0)
        sent = received = None
        x = np.zeros((4, 1175, 1000), np.float32)
        for _ in range(3):
            x = np.float32(0.8) * x + rng.normal(0, 0.01, x.shape).astype(np.float32)
            update = dict(zip("abcd", x, strict=True))
            held = sum(a.nbytes for a in sent.arrays.values()) if sent else 0
            encoding, (frame, sent) = peak_bytes(partial(codec.encode, update, sent))
            decoding, (_, received) = peak_bytes(partial(codec.decode, frame, received))
        shares = [f"{size / x.nbytes:.2f}" for size in (encoding, decoding, held)]
        rows.append(f"| `{json.dumps(config)}` | {' | '.join(shares)} |")
    return rows


def peak_bytes(call: Callable[[], Any]) -> tuple[int, Any]:
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", metavar="LABEL=FOLDER", help="recorded updates"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timings, best taken")
    parser.add_argument("--skip-rans", action="store_true")
    args = parser.parse_args()
    os.nice(5)
    data = {"i.i.d. Gaussian": synthetic_rounds("Gaussian")}
    data["i.i.d. Laplace"] = synthetic_rounds("Laplace")
    for item in args.folders:
        label, _, folder = item.partition("=")
        files = sorted(Path(folder).glob("round_*.npz"))
        data[label] = [dict(np.load(file)) for file in files]
    peers = " · ".join(f"{p} {version(p)}" for p in ("numpy", "constriction", "pysz"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} · Python {platform.python_version()} · {peers}\n"
    )
    if not args.skip_rans:
        print("| symbols | contexts | entropy, bits | over it | encode MB/s | ", end="")
        print("decode MB/s | constriction encode | constriction decode |")
        print("|" + "---|" * 8)
        print("\n".join(rans_rows(args.repeats)), flush=True)
    print("\n| updates | REL | ours | best SZ3 | SZ3 default | ours / best | ", end="")
    print("ours / default | max error / bound | MB/s encode / decode |")
    print("|" + "---|" * 9)
    for label, rounds in data.items():
        print("\n".join(bounded_rows(label, rounds)), flush=True)
    print("\n| updates | top-k 10 % NMSE | bytes | lattice NMSE | bytes | share |")
    print("|" + "---|" * 6)
    for label, rounds in data.items():
        print("\n".join(lattice_rows(label, rounds)), flush=True)
    print("\n| source | bits/param | lattice NMSE | ideal at 1 bit | ratio |")
    print("|" + "---|" * 5)
    print("\n".join(ideal_rows()), flush=True)
    print("\n| codec | encoding | decoding | remembered |\n|" + "---|" * 4)
    print("\n".join(memory_rows()))


if __name__ == "__main__":
    main()
