"""Any frame's tensors, read with the standard library and zstd only.

Written from docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .plain_correlation import correlation, planes
from .plain_error_bounded import Memory, error_bounded
from .plain_lattice import lattice
from .plain_reader import (
    FLOATS,
    Decoded,
    Frame,
    Sections,
    Table,
    Tensor,
    bits,
    f32,
    floats,
    layout_digest,
    owners,
    read_as_they_are,
    read_exact,
    read_frame,
    read_positions,
    read_table,
    to_bytes,
)
from .plain_symbols import read_block, read_parts

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


@dataclass(frozen=True)
class State:
    """What a reader holds between two frames."""

    table: Table
    version: int = 0
    arrays: Memory = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        if not self.arrays:
            return bytes(8)
        data = struct.pack("<I", self.version) + layout_digest(self.table)
        for name in sorted(self.arrays, key=str.encode):
            form, values = self.arrays[name]
            data += name.encode() + struct.pack(f"<{len(values)}{form}", *values)
        return struct.pack("<II", zlib.crc32(data), zlib.adler32(data))


def decode(
    data: bytes,
    state: State | None = None,
    stale: list[float] | None = None,
    base: dict[str, list[float]] | None = None,
) -> tuple[Decoded, State]:
    """Return each tensor with its little-endian elements, and the new state.

    `stale` is the lossy vector of the model that a reader of `caesar_model` holds,
    `base` has the elements of the model of which the frame is an update.
    """
    frame = read_frame(data)
    if "TABL" in frame.sections:
        assert hashlib.sha256(frame.sections["TABL"]).digest()[:16] == frame.layout
        table = read_table(frame.sections["TABL"])
    else:
        assert state is not None, "the frame needs the table of an earlier one"
        table = state.table
        assert layout_digest(table) == frame.layout
    memory: Memory = {}
    version = 0
    if frame.state != (0, bytes(8)):
        assert state is not None, "the frame needs a state"
        assert frame.state == (state.version, state.digest)
        memory, version = dict(state.arrays), state.version
    lossy = [tensor for tensor in table if is_lossy(tensor, frame.config)]
    exact = [tensor for tensor in table if tensor not in lossy]
    content = read_exact(exact, frame.sections)
    if lossy:
        vector = read_vector(frame, lossy, memory, stale)
        at = 0
        for tensor in lossy:
            part = vector[at : at + tensor.size]
            content[tensor.name] = b"".join(to_bytes(x, tensor.dtype) for x in part)
            at += tensor.size
    if frame.flags & 2:
        content |= read_as_they_are(frame.sections["ASIS"], table)
    if frame.flags & 4:
        assert base is not None, "the frame needs the model that it updates"
        named = bits(frame.sections["RAIS"])
        for tensor in [tensor for tensor in table if next(named)]:
            form = {"float32": "f", "float64": "d"}[tensor.dtype]
            update = struct.unpack(f"<{tensor.size}{form}", content[tensor.name])
            content[tensor.name] = struct.pack(
                f"<{tensor.size}{form}",
                *(max(u, -b) for u, b in zip(update, base[tensor.name], strict=True)),
            )
    decoded = [(tensor, content[tensor.name]) for tensor in table]
    return decoded, State(table, version + 1 if memory else 0, memory)


def is_lossy(tensor: Tensor, config: dict[str, Any]) -> bool:
    """Whether a codec sends a tensor lossily."""
    if config["id"] == "dense" or tensor.size < max(config["exact_below"], 1):
        return False
    if config["id"] == "error_bounded":
        return tensor.dtype == "float32"
    if config["id"] == "prune" and config["exclude_1d"] and len(tensor.shape) < 2:
        return False
    return tensor.dtype in FLOATS


def read_vector(
    frame: Frame, lossy: Table, memory: Memory, stale: list[float] | None
) -> list[float]:
    """Return the lossy tensors as one vector; `memory` is advanced."""
    if frame.config["id"] == "caesar_model":
        return caesar_model(lossy, frame.sections, stale)
    if frame.config["id"] == "correlation":
        return correlation(frame.config, lossy, frame.sections, memory)
    if frame.config["id"] == "error_bounded":
        return error_bounded(lossy, frame.sections, memory)
    if frame.config["id"] == "predicted":
        return predicted(frame.config, lossy, frame.sections, memory)
    read = {
        "cast": cast,
        "lattice": lattice,
        "prune": prune,
        "qsgd": qsgd,
        "quantized": quantized,
        "rotated": rotated,
        "signs": signs,
        "ternary": ternary,
        "topk": topk,
    }
    return read[frame.config["id"]](frame.config, lossy, frame.sections)


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


def topk(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    vector = [0.0] * len(owners(lossy))
    positions = read_positions(sections["POS"], len(vector))
    form = {"float32": "f", "float16": "e"}[config["values"]]
    scaled = "VALX" in sections
    values = struct.unpack(
        f"<{len(positions)}{form}", sections["VALX" if scaled else "VAL"]
    )
    owner = owners(lossy)
    exponents = struct.unpack(f"<{len(lossy)}b", sections["EXP"]) if scaled else ()
    for position, value in zip(positions, values, strict=True):
        octaves = exponents[owner[position]] if scaled else 0
        vector[position] = f32(math.ldexp(value, octaves))
    return vector


def predicted(
    config: dict[str, Any], lossy: Table, sections: Sections, memory: Memory
) -> list[float]:
    if config["compressor"] == "topk":
        sent = topk({**config, "values": "float16"}, lossy, sections)
    else:
        sent = quantized({**config, "levels": "uniform"}, lossy, sections)
    if not memory:
        return sent
    assert memory.keys() == {tensor.name for tensor in lossy}
    expected = [x for tensor in lossy for x in memory[tensor.name][1]]
    memory.clear()
    return [f32(x + p) for x, p in zip(sent, expected, strict=True)]


def prune(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    owner = owners(lossy)
    width = config.get("bits", 32)
    if width < 32:
        top = max(2 ** (width - 1) - 1, 1)
        scales = floats(sections["SCL"])
        powers = width > 1 and config.get("levels") == "power_of_two"
        vector = []
        for level, i in zip(read_block(sections["BLK"], lossy), owner, strict=True):
            if powers and level:
                value = f32(scales[i] * 2.0 ** (abs(level) - top))
                vector.append(-value if level < 0 else value)
            else:
                vector.append(f32(f32(level / top) * scales[i]))
        return vector
    vector = [0.0] * len(owner)
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


def levels(config: dict[str, Any], lossy: Table, sections: Sections) -> list[int]:
    """Read the levels of `qsgd`, in any form."""
    owner = owners(lossy)
    if config["levels"] > 255:
        return read_block(sections["BLK"], lossy)
    if len(owner) >= 16384:
        own = [i for i, t in enumerate(lossy) if t.size >= 16384][:255]
        numbers = {i: number for number, i in enumerate(own, 1)}
        contexts = [numbers.get(i, 0) for i in owner]
        symbols = read_parts(sections["SYM"], contexts, len(own) + 1)
        return [symbol - int(config["levels"]) for symbol in symbols]
    found = [0] * len(owner)
    negative = bits(sections["SIGN"])
    positions = read_positions(sections["POS"], len(owner))
    for position, magnitude in zip(positions, sections["MAG"], strict=True):
        found[position] = -magnitude - 1 if next(negative) else magnitude + 1
    return found


def qsgd(config: dict[str, Any], lossy: Table, sections: Sections) -> list[float]:
    norms = iter(floats(sections["NORM"]))
    found = iter(levels(config, lossy, sections))
    vector = []
    for tensor in lossy:
        for at in range(tensor.size):
            if at % (config.get("bucket", 0) or tensor.size) == 0:
                norm = next(norms)
            vector.append(f32(f32(next(found) / config["levels"]) * norm))
    return vector


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
