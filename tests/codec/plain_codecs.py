"""Readers of the lossy codecs, written from docs/wire/ with the standard library only.

`docs/wire-format.md` has the parts they share: see `plain_reader`. The entropy-coded
form of `qsgd` is not read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from .plain_reader import (
    FLOATS,
    Table,
    bits,
    read_exact,
    read_frame,
    read_positions,
    read_table,
)

Sections = dict[str, bytes]
MASK = (1 << 64) - 1
BOOKS = {
    1: [0.7978845608],
    2: [0.4527800346, 1.5104176085],
    3: [0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045],
    4: [
        *(0.1283950299, 0.3880482995, 0.6567591185, 0.9423404565),
        *(1.2562311973, 1.6180463860, 2.0690172265, 2.7325895710),
    ],
}


def f32(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def floats(data: bytes) -> list[float]:
    """Read float32 numbers."""
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def decode(
    frame: bytes, stale: list[float] | None = None
) -> tuple[dict[str, bytes], list[float]]:
    """Return the bytes of the exact tensors, and the lossy vector."""
    config, _, sections = read_frame(frame)
    table = read_table(sections["TABL"])
    lossy = [
        t
        for t in table
        if t.dtype in FLOATS
        and t.size >= max(config["exact_below"], 1)
        and not (config.get("exclude_1d") and len(t.shape) < 2)
    ]
    exact = read_exact([t for t in table if t not in lossy], sections)
    if not lossy:
        return exact, []
    read = {
        "cast": cast,
        "signs": signs,
        "ternary": ternary,
        "prune": prune,
        "qsgd": qsgd,
        "quantized": quantized,
        "rotated": rotated,
    }
    if config["id"] == "caesar_model":
        return exact, caesar_model(lossy, sections, stale)
    return exact, read[config["id"]](config, lossy, sections)


def owners(lossy: Table) -> list[int]:
    """Return the number of the tensor that each element lies in."""
    return [i for i, tensor in enumerate(lossy) for _ in range(tensor.size)]


def cast(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    n = len(owners(lossy))
    if config["dtype"] == "float16":
        return list(struct.unpack(f"<{n}e", sections["VAL"]))
    words = struct.unpack(f"<{n}H", sections["VAL"])
    return floats(struct.pack(f"<{n}I", *(word << 16 for word in words)))


def signs(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    means = floats(sections["MEAN"])
    negative = bits(sections["SIGN"])
    return [-means[i] if next(negative) else means[i] for i in owners(lossy)]


def ternary(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    owner = owners(lossy)
    means = floats(sections["MEAN"])
    negative = bits(sections["SIGN"])
    vector = [0.0] * len(owner)
    for position in read_positions(sections["POS"], len(owner)):
        mean = means[owner[position]]
        vector[position] = -mean if next(negative) else mean
    return vector


def prune(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    vector = [0.0] * len(owners(lossy))
    positions = read_positions(sections["POS"], len(vector))
    for position, value in zip(positions, floats(sections["VAL"]), strict=True):
        vector[position] = value
    return vector


def caesar_model(
    lossy: Table, sections: Sections, stale: list[float] | None
) -> list[float]:
    owner = owners(lossy)
    full = set(read_positions(sections["POS"], len(owner)))
    values = iter(floats(sections["VAL"]))
    bounds = floats(sections["BND"])
    negative = bits(sections["SIGN"])
    vector = []
    for i, tensor in enumerate(owner):
        if i in full:
            vector.append(next(values))
            continue
        mean, largest = bounds[2 * tensor], bounds[2 * tensor + 1]
        sign = next(negative)
        if stale and abs(stale[i]) <= largest and (stale[i] < 0) == (sign == 1):
            vector.append(stale[i])
        else:
            vector.append(-mean if sign else mean)
    return vector


def qsgd(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    owner = owners(lossy)
    norms = floats(sections["NORM"])
    negative = bits(sections["SIGN"])
    vector = [0.0] * len(owner)
    positions = read_positions(sections["POS"], len(owner))
    for position, magnitude in zip(positions, sections["MAG"], strict=True):
        level = magnitude + 1
        quotient = f32((-level if next(negative) else level) / config["levels"])
        vector[position] = f32(quotient * norms[owner[position]])
    return vector


def planes(data: bytes, count: int, width: int) -> list[int]:
    """Read codes from bit planes."""
    size = (count + 7) // 8
    codes = [0] * count
    for plane in range(width):
        run = bits(data[plane * size : (plane + 1) * size])
        codes = [2 * code + next(run) for code in codes]
    return codes


def quantized(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    owner = owners(lossy)
    vector = [0.0] * len(owner)
    positions = read_positions(sections["POS"], len(owner))
    scales = floats(sections["SCL"])
    at = 0
    for i, width in enumerate(sections["BITS"]):
        mine = [position for position in positions if owner[position] == i]
        size = width * ((len(mine) + 7) // 8)
        codes = planes(sections["CODE"][at : at + size], len(mine), width)
        at += size
        top = 2 ** (width - 1) - 1
        for position, code in zip(mine, codes, strict=True):
            level = code - top
            if config["levels"] == "uniform":
                vector[position] = f32(level * scales[i])
            elif level:
                value = f32(scales[i] * 2.0 ** (abs(level) - top))
                vector[position] = -value if level < 0 else value
    return vector


def blocks(n: int) -> Iterator[int]:
    """Yield the lengths of the blocks of a rotated vector."""
    while n >= 65536:
        yield 65536
        n -= 65536
    for log2 in range(15, 5, -1):
        if n >> log2 & 1:
            yield 1 << log2
    n &= 63
    if n:
        length = 1
        while length < n:
            length *= 2
        yield length


def splitmix64(seed: int, j: int) -> int:
    """Return output `j`."""
    z = (seed + (j + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def rotated(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    n = len(owners(lossy))
    sizes = list(blocks(n))
    (seed,) = struct.unpack("<Q", sections["SEED"])
    positive = BOOKS[config["bits"]]
    book = [-level for level in reversed(positive)] + positive
    codes = planes(sections["CODE"], sum(sizes), config["bits"])
    vector: list[float] = []
    for size, scale in zip(sizes, floats(sections["SCL"]), strict=True):
        start = len(vector)
        y = [book[code] * scale for code in codes[start : start + size]]
        half = 1
        while half < size:
            for i in range(size):
                if not i & half:
                    y[i], y[i + half] = y[i] + y[i + half], y[i] - y[i + half]
            half *= 2
        for i, value in enumerate(y, start):
            negative = splitmix64(seed, i // 64) >> (i % 64) & 1
            vector.append(-value if negative else value)
    return vector[:n]
