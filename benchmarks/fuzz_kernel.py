"""Feed hostile bytes to the compiled kernel, built with sanitisers, and compare numpy.

The kernel is built anew with AddressSanitizer and UndefinedBehaviorSanitizer: any read
or write outside of an array, any memory that is lost, any overflow that C leaves
undefined, ends a run with a report and exit status 1. First `fuzz_kernel.c` makes
streams of symbols, mutates them, and has the loops decode them and the integers that
they become. Then this script runs itself with the kernel: a trial is a mutation of a
good encoding, given to the decoder of symbols, of integers, of a block or of a frame;
or a call of a function of the kernel with arrays of random kinds, lengths and contents.
An outcome (values, or the words of an error) that numpy's loops do not have, with which
`--compare` of the trials are compared, also ends the run with status 1.

    python benchmarks/fuzz_kernel.py --streams 1000000 --trials 100000 --seed 1

It needs gcc or clang with the sanitisers, and Python's headers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import describe
from fuzz_kernel_inputs import call_directly, make_targets

from flwr_caesar.codec import CodecError, kernel

SOURCES = Path(kernel.__file__).parent
FLAGS = "-std=c11 -O2 -g -fno-omit-frame-pointer -ffp-contract=off"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
COMPILER = os.environ.get("CC", "gcc")
PROGRAM = Path(__file__).with_suffix(".c")
LIBRARY = "FUZZ_KERNEL_LIBRARY"
DIRECT = "function called directly"


class Watched:
    """A kernel that tells how often its decoders were called."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        """Return the kernel's function, and count that it was asked for."""
        self.calls[name] += 1
        return getattr(self._native, name)


def outcome(call: Callable[[], object]) -> tuple[str, object]:
    """Return how a call ended, and with what."""
    try:
        found = call()
    except CodecError as err:
        return type(err).__name__, str(err)
    if isinstance(found, dict):
        found = {name: array.tobytes() for name, array in found.items()}
    return "decoded", found.tobytes() if isinstance(found, np.ndarray) else found


def fuzz(native: Any, args: argparse.Namespace) -> int:
    """Run the trials with a kernel, print the table, and return the exit status."""
    kernel.native = None
    targets = make_targets()
    watched = kernel.native = Watched(native)
    reached = Counter[str]()
    rng = np.random.default_rng(args.seed)
    ends = {name: Counter[str]() for name in [*targets, DIRECT]}
    compared = dict.fromkeys(ends, 0)
    names = list(ends)
    start = time.monotonic()
    done = 0
    for done in range(1, args.trials + 1):
        if done % 20_000 == 0:
            passed = time.monotonic() - start
            print(f"{done:,} trials, {passed:.0f} s", file=sys.stderr, flush=True)
            if passed > args.seconds:
                break
        name = names[int(rng.integers(len(names)))]
        if name == DIRECT:
            ends[name][call_directly(native, rng)] += 1
            continue
        target = targets[name]
        number = int(rng.integers(len(target.good)))
        data = target.mutate(target.good[number], rng)
        before = watched.calls["pull"]
        found = outcome(lambda t=target, d=data, i=number: t.decode(d, i))
        ends[name][found[0]] += 1
        reached[name] += watched.calls["pull"] > before
        if rng.random() < args.compare:
            kernel.native = None
            expected = outcome(lambda t=target, d=data, i=number: t.decode(d, i))
            kernel.native = watched
            compared[name] += 1
            if found != expected:
                print(f"trial {done}, {name}: {found} is not {expected}")
                return 1
    print("| what | trials | outcomes | decoded symbols | compared with numpy |")
    print("| --- | ---: | --- | ---: | ---: |")
    for name, counts in ends.items():
        text = ", ".join(f"{key} {n:,}" for key, n in counts.most_common())
        further = f"{reached[name]:,} | {compared[name]:,}"
        print(f"| {name} | {counts.total():,} | {text} | {further} |")
    print(f"\n{done:,} trials, {time.monotonic() - start:.0f} s, nothing found.\n")
    print(describe("python benchmarks/fuzz_kernel.py " + " ".join(sys.argv[1:])))
    return 0


def compile_sanitised(sources: list[Path], *options: str) -> None:
    """Compile with the sanitisers."""
    flags = [*FLAGS.split(), *SANITIZERS.split(), *options]
    subprocess.run([COMPILER, *flags, *map(str, sources), "-lm"], check=True)


def fuzz_streams(folder: Path, trials: int, seed: int) -> int:
    """Run `fuzz_kernel.c`, print its table, and return its exit status."""
    program = folder / "fuzz_kernel"
    loops = [path for path in SOURCES.glob("*.c") if path.name != "module.c"]
    compile_sanitised([PROGRAM, *loops], "-o", str(program))
    options = {"ASAN_OPTIONS": "malloc_context_size=0:quarantine_size_mb=1"}
    start = time.monotonic()
    done = subprocess.run(
        [str(program), str(trials), str(seed)],
        env={**os.environ, **options},
        stdout=subprocess.PIPE,
        text=True,
    )
    print("| streams | |\n| --- | ---: |")
    for line in done.stdout.splitlines():
        name, _, count = line.partition("\t")
        print(f"| {name} | {int(count):,} |")
    said = "nothing found" if done.returncode == 0 else "FAILED"
    print(
        f"\n{trials:,} streams, {time.monotonic() - start:.0f} s, {said}.\n", flush=True
    )
    return done.returncode


def run_sanitised(args: argparse.Namespace) -> int:
    """Fuzz the loops alone, then run this script with the kernel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.streams and fuzz_streams(folder, args.streams, args.seed):
            return 1
        library = folder / "_native.so"
        include = f"-I{sysconfig.get_paths()['include']}"
        options = (include, "-shared", "-fPIC", "-o", str(library))
        compile_sanitised(sorted(SOURCES.glob("*.c")), *options)
        runtime = subprocess.run(
            [COMPILER, "-print-file-name=libasan.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        environment = {
            **os.environ,
            LIBRARY: str(library),
            "LD_PRELOAD": runtime,
            "PYTHONMALLOC": "malloc",  # so that each object has its own borders
            # Python itself does not give everything back at its end.
            "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=0:quarantine_size_mb=4",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def main() -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=7200, help="stop after this")
    parser.add_argument("--compare", type=float, default=0.2, help="share of these")
    args = parser.parse_args()
    library = os.environ.get(LIBRARY)
    if library is None:
        return run_sanitised(args)
    spec = importlib.util.spec_from_file_location("_native", library)
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    return fuzz(native, args)


if __name__ == "__main__":
    sys.exit(main())
