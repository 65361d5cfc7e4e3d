"""Time the slowest `lattice` frames that we know how to make, beside good ones.

Mutations do not find them. "One symbol" has streams of one symbol only, so that no
words are needed, in as few lanes as the format allows; "all contexts" has a table of
512 symbols for each of 96 contexts. Good frames are of Gaussian values and of zeros.
Times are CPU time, the best of several tries; memory is what `tracemalloc` sees.

    python benchmarks/slow_frames.py
"""

from __future__ import annotations

import struct
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flwr_caesar.codec import Codec, CodecState, get_codec
from flwr_caesar.codec.coding.contexts import (
    ContextMap,
    as_channels,
    count_scales,
    scale_classes,
    scale_kinds,
)
from flwr_caesar.codec.coding.integers import encode_integers
from flwr_caesar.codec.coding.rans import MAX_ROWS
from flwr_caesar.codec.coding.tables import MAX_CODE, pack_tables
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.contract.frame import FrameReader

Array = np.ndarray[Any, Any]
CODEC = {"id": "lattice", "rate": 2.0, "exact_below": 64}
SHAPES = ((96, 8), (96, 64), (96, 640), (960, 1024))
REPEATS = 9
CLASSES, KINDS = 96, 4
HEAD = "<QIHHHHI"


def one_symbol(n: int, contexts: int) -> bytes:
    """Return `n` zeros as two parts of at most 2,048 rows, each state its own end."""
    lanes = max(-(-n // (2 * MAX_ROWS)), 1)
    head = min(lanes * MAX_ROWS, n // 2)
    flags = bytes((lanes + 15) // 16 * 2)
    upper = bytes([1]) * lanes + bytes(lanes % 2)
    part = flags + bytes(2 * lanes) + upper
    words = len(part)  # two parts of two-byte words
    tables = pack_tables(np.full((contexts, 1), MAX_CODE, np.uint8))
    stream = struct.pack(HEAD, n, head, lanes, lanes, 0, contexts, words)
    stream += tables + part + part
    return struct.pack("<I", len(stream)) + stream


def one_symbol_block(shape: tuple[int, int]) -> bytes:
    """Return a block of zeros whose two streams are made by hand."""
    scales = one_symbol(count_scales(as_channels(shape)), KINDS)
    contexts = ContextMap(shift=1, first=0, width=1, use_history=False)
    indices = one_symbol(shape[0] * shape[1], 1)
    return struct.pack("<I", len(scales)) + scales + contexts.to_bytes() + indices


def all_contexts_block(shape: tuple[int, int]) -> bytes:
    """Return a block whose outputs are in contexts of their own."""
    channels = as_channels(shape)
    kinds = scale_kinds(channels)
    scales = np.zeros(len(kinds), np.int32)
    scales[kinds == 1] = np.arange(np.count_nonzero(kinds == 1)) % CLASSES
    scales[0] = -32
    contexts = ContextMap(shift=0, first=0, width=CLASSES, use_history=False)
    classes = scale_classes(scales.astype(np.int16), channels).reshape(-1)
    values = (np.arange(len(classes)) * 7919 % 512 - 256).astype(np.int32)
    packed = encode_integers(scales, kinds, KINDS)
    indices = encode_integers(values, contexts.contexts(classes, None), contexts.size)
    return struct.pack("<I", len(packed)) + packed + contexts.to_bytes() + indices


def with_block(frame: bytes, block: bytes) -> bytes:
    """Return a `lattice` frame with another block behind its step."""
    parts = Parts.of(frame)
    step = FrameReader(frame).section("LATT", max_size=len(frame) * 1000)[:3]
    for entry in parts.entries:
        if entry[0] == b"LATT":
            data = step + block
            entry[1:] = [0, len(data), len(data), data]
    return seal(parts.join())


def measure(codec: Codec, frame: bytes, state: CodecState) -> tuple[float, int]:
    """Return the least CPU milliseconds of a decoding, and its peak of memory."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        codec.decode(frame, state)
        times.append(1000 * (time.process_time() - start))
    tracemalloc.start()
    codec.decode(frame, state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(times), peak


def main() -> None:
    codec = get_codec(CODEC)
    print("| elements | Gaussian | zeros | one symbol | all contexts |")
    print("|" + " ---: |" * 5)
    for shape in SHAPES:
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        good, sender = codec.encode({"w": x})
        zeros, _ = codec.encode({"w": np.zeros_like(x)})
        frames = [
            good,
            zeros,
            with_block(good, one_symbol_block(shape)),
            with_block(good, all_contexts_block(shape)),
        ]
        state = CodecState(sender.layout)
        found = [measure(codec, frame, state) for frame in frames]
        cells = [f"{ms:.1f} ms, {peak / 1e6:.1f} MB" for ms, peak in found]
        print(f"| {x.size:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
