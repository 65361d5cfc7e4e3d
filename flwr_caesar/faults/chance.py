"""Chance in a simulation of faults: one seed, and a count of what it struck."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any


class Chance:
    """Draws faults, and damages what it is given.

    Parameters
    ----------
    seed : int
        Decides every draw.

    Attributes
    ----------
    random : random.Random
        For draws that are no faults.
    faults : Counter
        What was injected, by kind.
    quiet : bool
        Whether to inject nothing.
    scale : float
        Every fault's chance is this times what its table says.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.quiet = False
        self.scale = 1.0

    def new_id(self) -> int:
        """Return a random nonzero number below ``2**64``."""
        return self.random.randrange(1, 1 << 64)

    def pick(self, chances: Mapping[str, float], *, count: bool = True) -> str:
        """Return which of these faults strikes; empty if none does."""
        if self.quiet:
            return ""
        left = self.random.random()
        for kind, chance in chances.items():
            left -= chance * self.scale
            if left < 0:
                if count:
                    self.faults[kind] += 1
                return kind
        return ""

    def strikes(self, kind: str, chances: Mapping[str, float]) -> bool:
        """Whether one fault of a table strikes, without regard to the others."""
        hit = not self.quiet and self.random.random() < chances[kind] * self.scale
        if hit:
            self.faults[kind] += 1
        return hit

    def flip(self, data: bytes) -> bytes:
        """Return data with one bit changed."""
        if not data:
            return b"\0"
        flipped = bytearray(data)
        flipped[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(flipped)

    def tamper(self, value: bytes | str) -> Any:
        """Return something else than a header's value, often of another type."""
        odd = [None, -1, 1.5, True, [1, 2], "ü", b"", "x" * 100, bytes(4096)]
        if isinstance(value, bytes) and self.random.random() < 0.6:
            return self.flip(value)
        return self.random.choice([o for o in odd if o != value])
