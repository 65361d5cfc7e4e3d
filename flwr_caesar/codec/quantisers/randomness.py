"""Randomness without hidden state: every draw follows from a seed and the data.

Encoding is pure, so a codec cannot keep a generator. It derives one 64-bit seed per
frame from its configured seed and the bytes it is given: other data, or another
configured seed, gives independent draws, while the same call gives the same frame.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..contract.layout import Array
from ..contract.vector import Vector

Words = np.ndarray[Any, np.dtype[np.uint64]]

MAX_SEED = (1 << 63) - 1
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ROW = 1024


def content_seed(vector: Vector, seed: int) -> int:
    """Return 64 bits that depend on every bit of `vector` and on `seed`.

    Rows of 1,024 elements are added as 64-bit words before they are hashed, which is
    many times faster than hashing them all. It separates data, not adversaries.
    """
    rows = len(vector) // _ROW
    head = np.ascontiguousarray(vector[: rows * _ROW]).view(np.uint64)
    folded = head.reshape(rows, _ROW // 2).sum(axis=0, dtype=np.uint64)
    data = folded.tobytes() + vector[rows * _ROW :].tobytes()
    key = seed.to_bytes(8, "little")
    digest = hashlib.blake2b(data, digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little")


def splitmix64(seed: int, start: int, count: int) -> Words:
    """Return outputs `start` to ``start + count`` of SplitMix64 from `seed`.

    A counter-based generator: output `i` is a mix of ``seed + (i + 1) * gamma`` and
    needs no other output.

    References
    ----------
    Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators".
    """
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z *= _GAMMA
    z += np.uint64(seed)
    return mix64(z)


def mix64(z: Words) -> Words:
    """Return SplitMix64's mix of each word: close words become unrelated ones."""
    z = z ^ (z >> np.uint64(30))
    z *= _MIX_1
    z ^= z >> np.uint64(27)
    z *= _MIX_2
    z ^= z >> np.uint64(31)
    return z


def random_bits(seed: int, start: int, count: int) -> Array:
    """Return bits `start` to ``start + count`` of the SplitMix64 stream, as uint8.

    Bit `i` is bit ``i % 64``, least significant first, of output ``i // 64``; `start`
    is a multiple of 64.
    """
    words = splitmix64(seed, start // 64, (count + 63) // 64)
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, count=count, bitorder="little")


def generator(seed: int) -> np.random.Generator:
    """Return a generator for draws that no decoder repeats."""
    return np.random.Generator(np.random.SFC64(seed))


def round_at_random(x: Vector, source: np.random.Generator) -> Vector:
    """Round each non-negative element down or up, so that its mean is kept.

    ``floor(x) + 1`` with probability ``x - floor(x)``, else ``floor(x)``; exact to
    2^-24 of a unit.
    """
    low = np.floor(x)
    rounded: Vector = low + (source.random(len(x), dtype=np.float32) < x - low)
    return rounded
