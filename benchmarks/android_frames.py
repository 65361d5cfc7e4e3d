"""Compare what the Android client's core and the reference make of hostile frames.

Each frame is a mutation of a golden frame of a codec that phones have. Both readers
have to decode it to the same tensors, to the bit, or to refuse it, or to say that they
lack a state; what may differ is in `tests/android/differential.py`, with a reason. The
script prints a table and exits with 1 on any other difference.

    python benchmarks/android_frames.py --frames 30000 --seed 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import describe

from flwr_caesar.codec.conformance.mutate import KINDS
from tests.android.differential import EXPLAINED, Comparison, samples
from tests.android.jvm import Jvm

WORDS = ("decoded", "refused", "lacks")


def main() -> int:
    """Compare and print a table; return 1 on a difference that nothing explains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = samples()
    each = -(-given.frames // len(found))
    comparison = Comparison()
    start = time.monotonic()
    with Jvm() as jvm:
        comparison.run(jvm, found, each, given.seed)
    seconds = time.monotonic() - start
    print(f"{each * len(found):,} frames, {each} of each of {len(found)} samples\n")
    print("| kind | decoded | refused | lacks a state |\n| --- | ---: | ---: | ---: |")
    for kind in KINDS:
        counts = [comparison.outcomes[kind, word] for word in WORDS]
        print(f"| {kind} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    print(f"\nDifferences without a reason: {len(comparison.differences)}")
    for words, count in comparison.explained.items():
        print(f"With one: {count:,} times, {EXPLAINED[words]}")
    for difference in comparison.differences:
        print(difference)
    command = f"python benchmarks/android_frames.py --frames {given.frames}"
    java = subprocess.run(["java", "-version"], capture_output=True, text=True)
    print(
        f"\n{describe(command + f' --seed {given.seed}', ('numpy', 'zstandard'))} "
        f"{java.stderr.splitlines()[0]}, in {seconds:.0f} s."
    )
    return 1 if comparison.differences else 0


if __name__ == "__main__":
    sys.exit(main())
