"""Feed hostile bytes to the compiled kernel, built with sanitisers, and compare numpy.

The kernel is built anew with AddressSanitizer and UndefinedBehaviorSanitizer, and this
script runs itself with it: any read or write outside of an array, any overflow that C
leaves undefined, ends it with a report and exit status 1. So does an outcome (values,
or the words of an error) that numpy's loops do not have, with which one trial in
`--compare` is compared. A trial is a mutation of a good encoding, given to the decoder
of symbols, of integers, of a block or of a frame; or a call of a function of the
kernel with arrays of random kinds, lengths and contents.

    python benchmarks/fuzz_kernel.py --trials 2000000 --seed 1

It needs a C compiler with the sanitisers, gcc or clang, and Python's headers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import describe
from flwr_caesar.codec import CodecError, CodecState, get_codec, kernel
from flwr_caesar.codec.coding.integers import decode_integers, encode_integers
from flwr_caesar.codec.coding.lattice_block import decode_block, encode_block
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols
from flwr_caesar.codec.conformance.mutate import mutate
from flwr_caesar.codec.contract.layout import Layout

SOURCES = Path(kernel.__file__).parent
FLAGS = "-std=c11 -O1 -g -fno-omit-frame-pointer -ffp-contract=off -shared -fPIC"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
LIBRARY = "FUZZ_KERNEL_LIBRARY"
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
KINDS = ("u1", "u2", "u4", "i2", "i4", "i8", "f4", "f8")
MOST = 400

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Target:
    """A decoder and good encodings.

    Parameters
    ----------
    decode : callable
        Takes bytes and the number of the encoding that they were made of.
    good : list of bytes
        The encodings.
    mutate : callable
        Makes a hostile one of a good one.
    """

    decode: Callable[[bytes, int], object]
    good: list[bytes]
    mutate: Callable[[bytes, Generator], bytes]


def spoil(data: bytes, rng: Generator) -> bytes:
    """Change, cut or lengthen the bytes; in half of the cases only change the last."""
    bad = bytearray(data)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(len(bad) // 3, len(bad)))] ^= int(rng.integers(256))
        return bytes(bad)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(6))
        at = int(rng.integers(min(len(bad), 64) if rng.random() < 0.5 else len(bad)))
        if kind == 0:
            bad[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            bad[at : at + 2] = struct.pack("<H", int(rng.choice(EDGES)) & 0xFFFF)
        elif kind == 2:
            bad[at : at + 4] = struct.pack("<I", int(rng.choice(EDGES)))
        elif kind == 3:
            bad = bad[: at + 1]
        elif kind == 4:
            bad += rng.bytes(int(rng.integers(1, 40)))
        else:
            stop = at + int(rng.integers(1, 200))
            bad[at:stop] = rng.bytes(len(bad[at:stop]))
    return bytes(bad)


def symbols_target() -> Target:
    """One lane and a few, two parts, many contexts, and symbols of two bytes."""
    rng = np.random.default_rng(0)
    cases, good = [], []
    sizes = (60, 1, 0.6), (900, 5, 3.0), (3000, 256, 2.0), (700, 2, 400.0)
    for n, contexts, scale in (*sizes, (20_000, 7, 20.0)):
        at = rng.integers(0, contexts, n).astype(np.uint8)
        symbols = np.minimum(rng.exponential(scale, n), 511).astype(np.uint16)
        cases.append((at, contexts))
        good.append(encode_symbols(symbols, at, contexts))

    def decode(data: bytes, number: int) -> object:
        return decode_symbols(data, *cases[number])

    return Target(decode, good, spoil)


def integers_target() -> Target:
    """Integers near 0, and of up to 31 bits."""
    rng = np.random.default_rng(1)
    cases, good = [], []
    for n, bits in (200, 4), (300, 12), (150, 31):
        at = rng.integers(0, 3, n).astype(np.uint8)
        values = np.rint(rng.laplace(size=n) * 2.0 ** rng.integers(0, bits - 1, n))
        cases.append(at)
        good.append(encode_integers(values.astype(np.int32), at, 3))

    def decode(data: bytes, number: int) -> object:
        return decode_integers(data, cases[number], 3)

    return Target(decode, good, spoil)


def arrays(rng: Generator) -> dict[str, Array]:
    """Return some hundred elements in tensors of one to four axes."""
    shapes = {"a": (6, 5, 3, 3), "b": (9, 30), "c": (64,), "d": (3,)}
    return {
        name: rng.laplace(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def block_target() -> Target:
    """Blocks of several tensors."""
    rng = np.random.default_rng(2)
    specs = Layout.of(arrays(rng)).tensors
    n = sum(spec.size for spec in specs)
    good = [
        encode_block(np.rint(rng.laplace(size=n) * scale).astype(np.int32), specs)
        for scale in (0.5, 4.0, 2000.0)
    ]
    return Target(lambda data, _: decode_block(data, specs), good, spoil)


def frame_target(config: dict[str, Any]) -> Target:
    """Frames of a codec, continuing from a state if it has one."""
    codec = get_codec(config)
    layout = Layout.of(arrays(np.random.default_rng(0)))
    held: list[CodecState | None] = [None]
    sender: CodecState | None = None
    good = []
    for i in range(2):
        frame, sender = codec.encode(arrays(np.random.default_rng(i)), sender)
        held.append(codec.decode(frame, held[-1])[1])
        good.append(frame)

    def decode(data: bytes, number: int) -> object:
        return codec.decode(data, held[number], max_bytes=layout.nbytes)[0]

    return Target(decode, good, lambda frame, rng: mutate(frame, rng)[1])


class Watched:
    """A kernel that tells how often its decoders were called."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        """Return the kernel's function, and count that it was asked for."""
        self.calls[name] += 1
        return getattr(self._native, name)


def make_targets() -> dict[str, Target]:
    """Return all targets by name."""
    return {
        "symbols": symbols_target(),
        "integers": integers_target(),
        "block": block_target(),
        "frame of lattice": frame_target({"id": "lattice", "exact_below": 0}),
        "frame of error_bounded": frame_target(
            {"id": "error_bounded", "exact_below": 4}
        ),
    }


def outcome(call: Callable[[], object]) -> tuple[str, object]:
    """Return how a call ended, and with what."""
    try:
        found = call()
    except CodecError as err:
        return type(err).__name__, str(err)
    if isinstance(found, dict):
        found = {name: array.tobytes() for name, array in found.items()}
    return "decoded", found.tobytes() if isinstance(found, np.ndarray) else found


def random_argument(rng: Generator) -> object:
    """Return an array of any kind, small numbers mostly, or a number."""
    if rng.random() < 0.15:
        return int(rng.choice((-1, 0, 1, 2, 4, 9, 512, 2**31, 2**62)))
    kind = np.dtype(str(rng.choice(KINDS)))
    n = int(rng.choice((0, 1, 2, 4, 9, 28, 29, 256, 512, MOST)))
    if kind.kind == "f" or rng.random() < 0.3:
        return np.frombuffer(rng.bytes(n * kind.itemsize), kind).copy()
    return rng.integers(0, int(rng.choice((2, 5, 100))), n).astype(kind)


def fitting_arguments(name: str, rng: Generator) -> list[object]:
    """Return arguments of the right kinds and lengths, with any contents."""
    n = int(rng.integers(1, MOST))
    top = int(rng.choice((2, 40, 300, 65_536)))

    def some(kind: str, count: int, most: int = top) -> Array:
        info = np.iinfo(kind)
        return rng.integers(0, min(most, int(info.max) + 1), count).astype(kind)

    lanes = some("u4", int(rng.integers(1, 20)), 2**32)
    counts = rng.multinomial(1 << 14, rng.dirichlet(np.ones(6)), 3).astype(np.uint16)
    table = (counts[:, :1].astype(np.uint32) << 16).repeat(512, axis=1)
    starts = np.sort(rng.integers(0, 60, 29)).astype(np.int64)
    wide = some("i4", n, 2**31)
    o, i, k = (int(v) for v in rng.integers(1, 12, 3))
    floats = np.frombuffer(rng.bytes(4 * n), np.float32).copy()
    tensor = np.frombuffer(rng.bytes(4 * o * i * k), np.float32).copy()
    scales = [some("i2", int(rng.choice((0, m))), 300) for m in (o, i, k)]
    found: dict[str, list[object]] = {
        "push": [lanes, some("u2", n), some("u1", n, 4), table, some("u2", n + 1)],
        "pull": [lanes, some("u2", n), some("u2", n), some("u1", n, 4), counts, 6],
        "symbols": [wide, some("u2", n)],
        "octaves": [some("u2", n), np.zeros(28, np.int64)],
        "raw_bits": [wide, some("u2", n, 130), starts, some("u1", 60)],
        "integers": [some("u2", n, 130), starts, some("u1", 60), wide],
        "count": [some("u2", n), some("u1", n, 4), np.zeros(120, np.int64), 40],
        "mark": [some("u1", n), np.zeros(256, np.uint8)],
        "sums": [tensor, np.zeros(o), np.zeros(i), np.zeros(k)],
        "energy": [floats],
        "classes": [
            int(rng.integers(-300, 300)),
            *scales,
            *(o, i, k, np.empty(o * i * k, np.uint8)),
        ],
        "merge": [
            some("u1", n),
            *(int(v) for v in (rng.integers(8), rng.integers(40), rng.integers(256))),
            some("u1", n),
        ],
        "sample": [
            *(floats, some("i2", n, 96), int(rng.integers(-400, 400))),
            *(float(rng.choice((1e-30, 0.5))), 0.4, some("u2", n), some("u1", n)),
        ],
        "quantise": [floats, float(rng.choice((0.0, 1e-30, 0.5, -1.0))), 0.4, wide],
        "values": [wide, 0.5, floats],
    }
    return found[name]


def call_directly(native: Any, rng: Generator) -> str:
    """Call a function of the kernel with what nobody has checked."""
    name = str(rng.choice([n for n in dir(native) if not n.startswith("_")]))
    arguments = fitting_arguments(name, rng)
    for _ in range(int(rng.integers(0, 3))):
        place = int(rng.integers(len(arguments)))
        arguments[place] = random_argument(rng)
    try:
        getattr(native, name)(*arguments)
    except (ValueError, TypeError, BufferError, OverflowError) as err:
        return type(err).__name__
    return "returned"


def fuzz(native: Any, args: argparse.Namespace) -> int:
    """Run the trials with a kernel, print the table, and return the exit status."""
    kernel.native = None
    targets = make_targets()
    watched = kernel.native = Watched(native)
    reached = Counter[str]()
    rng = np.random.default_rng(args.seed)
    ends = {name: Counter[str]() for name in [*targets, "function called directly"]}
    compared = dict.fromkeys(ends, 0)
    start = time.monotonic()
    done = 0
    for done in range(1, args.trials + 1):
        name = str(rng.choice(list(ends)))
        if name not in targets:
            ends[name][call_directly(native, rng)] += 1
            continue
        target = targets[name]
        number = int(rng.integers(len(target.good)))
        data = target.mutate(target.good[number], rng)
        before = watched.calls["pull"]
        found = outcome(lambda t=target, d=data, i=number: t.decode(d, i))
        ends[name][found[0]] += 1
        reached[name] += watched.calls["pull"] > before
        if done % args.compare == 0:
            kernel.native = None
            expected = outcome(lambda t=target, d=data, i=number: t.decode(d, i))
            kernel.native = watched
            compared[name] += 1
            if found != expected:
                print(f"trial {done}, {name}: {found} is not {expected}")
                return 1
        if done % 50_000 == 0:
            seconds = time.monotonic() - start
            print(f"{done:,} trials, {seconds:.0f} s", file=sys.stderr, flush=True)
    print("| what | trials | outcomes | decoded symbols | compared with numpy |")
    print("| --- | ---: | --- | ---: | ---: |")
    for name, counts in ends.items():
        text = ", ".join(f"{key} {n:,}" for key, n in counts.most_common())
        further = f"{reached[name]:,} | {compared[name]:,}"
        print(f"| {name} | {counts.total():,} | {text} | {further} |")
    print(f"\n{done:,} trials, {time.monotonic() - start:.0f} s, nothing found.\n")
    print(describe("python benchmarks/fuzz_kernel.py " + " ".join(sys.argv[1:])))
    return 0


def build(folder: Path) -> Path:
    """Compile the kernel with the sanitisers."""
    library = folder / "_native.so"
    command = [
        os.environ.get("CC", "gcc"),
        *FLAGS.split(),
        *SANITIZERS.split(),
        f"-I{sysconfig.get_paths()['include']}",
        *map(str, sorted(SOURCES.glob("*.c"))),
        *("-o", str(library)),
    ]
    subprocess.run(command, check=True)
    return library


def run_sanitised() -> int:
    """Build the kernel and run this script with it."""
    compiler = os.environ.get("CC", "gcc")
    with tempfile.TemporaryDirectory() as name:
        library = build(Path(name))
        runtime = subprocess.run(
            [compiler, "-print-file-name=libasan.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        environment = {
            **os.environ,
            LIBRARY: str(library),
            "LD_PRELOAD": runtime,
            "PYTHONMALLOC": "malloc",  # so that each object has its own borders
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def main() -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", type=int, default=5, help="trials to a comparison")
    args = parser.parse_args()
    library = os.environ.get(LIBRARY)
    if library is None:
        return run_sanitised()
    spec = importlib.util.spec_from_file_location("_native", library)
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    return fuzz(native, args)


if __name__ == "__main__":
    sys.exit(main())
