"""The codec `correlation`, read with the standard library only.

Written from docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from .plain_error_bounded import Memory, narrow, widen
from .plain_reader import Sections, Table, bits, f32, floats, read_positions
from .plain_symbols import read_integers


def planes(data: bytes, count: int, width: int) -> list[int]:
    """Read codes from bit planes."""
    size = (count + 7) // 8
    codes = [0] * count
    for plane in range(width):
        run = bits(data[plane * size : (plane + 1) * size])
        codes = [2 * code + next(run) for code in codes]
    return codes


def read_levels(data: bytes, runs: list[tuple[int, int, int]]) -> list[list[int]]:
    """Read runs of levels, each of a count, bits and a context."""
    body = data[1:]
    if data[0] == 1:
        contexts = [context for count, _, context in runs for _ in range(count)]
        levels = read_integers(body, contexts, 8)
        return [[levels.pop(0) for _ in range(count)] for count, _, _ in runs]
    found = []
    for count, width, _ in runs:
        size = width * ((count + 7) // 8)
        top = 2 ** (width - 1) - 1
        found.append([code - top for code in planes(body[:size], count, width)])
        body = body[size:]
    assert not body
    return found


def correlation(
    config: dict[str, Any], lossy: Table, sections: Sections, memory: Memory
) -> list[float]:
    """Return all lossy tensors as one vector, and advance `memory`."""
    n = sum(tensor.size for tensor in lossy)
    positions = read_positions(sections["POS"], n)
    steps = floats(sections["STEP"])
    rows = list(struct.iter_unpack("<eBB", sections["TENS"]))
    held, start = [], 0
    for tensor in lossy:
        stop = start + tensor.size
        held.append([p - start for p in positions if start <= p < stop])
        start = stop
    runs = []
    for tensor, (_, width, rank), mine in zip(lossy, rows, held, strict=True):
        if rank:
            outputs = tensor.shape[0]
            runs.append((rank * (outputs + tensor.size // outputs), 4, 7))
        runs.append((len(mine), width, width - 2))
    levels = iter(read_levels(sections["VAL"], runs))

    vector: list[float] = []
    for tensor, (rho, _, rank), mine in zip(lossy, rows, held, strict=True):
        x = [0.0] * tensor.size
        if rho:
            previous = widen(memory[f"previous/{tensor.name}"][1])
            x = [f32(p * rho) for p in previous]
        if rank:
            outputs = tensor.shape[0]
            columns = math.prod(tensor.shape[1:])
            both = next(levels)
            left, right = both[: rank * outputs], both[rank * outputs :]
            right = [
                f32(q * steps[1 + rank + i // columns]) for i, q in enumerate(right)
            ]
            for c in range(rank):
                for o in range(outputs):
                    a = f32(left[c * outputs + o] * steps[1 + c])
                    for j in range(columns):
                        product = f32(a * right[c * columns + j])
                        x[o * columns + j] = f32(x[o * columns + j] + product)
            if config["memory"]:
                memory[f"right/{tensor.name}"] = "f", right
        for p, level in zip(mine, next(levels), strict=True):
            x[p] = f32(x[p] + f32(level * steps[0]))
        steps = steps[1 + 2 * rank :]
        vector += x
        if config["memory"]:
            memory[f"previous/{tensor.name}"] = "H", narrow(x)
    assert not steps
    return vector
