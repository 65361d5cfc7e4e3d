"""The codec `error_bounded`, read with the standard library only.

Written from docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from .plain_compact import read_compact_block
from .plain_reader import Sections, Table, Tensor, f32, floats, read_positions
from .plain_symbols import (
    ContextMap,
    channels,
    history_class,
    read_integers,
    scale_classes,
    scale_kinds,
)

Memory = dict[str, tuple[str, list[Any]]]


def widen(words: list[int]) -> list[float]:
    """Return upper halves of float32 patterns as numbers."""
    return floats(struct.pack(f"<{len(words)}I", *(word << 16 for word in words)))


def narrow(values: list[float]) -> list[int]:
    """Return the upper halves of float32 patterns."""
    data = struct.pack(f"<{len(values)}f", *values)
    return [word >> 16 for word in struct.unpack(f"<{len(values)}I", data)]


def advance(memory: Memory, name: str, now: list[float]) -> None:
    """Move an average by a round."""
    if name in memory:
        before = widen(memory[name][1])
        now = [
            f32(f32(a * 0.625) + f32(b * 0.375))
            for a, b in zip(now, before, strict=True)
        ]
    memory[name] = "H", narrow(now)


def advance_scores(
    memory: Memory, name: str, x: list[float], mean: float, deviation: float
) -> None:
    """Move the scores of the paper's predictors by a round."""
    scores = [f32(abs(v) - mean) for v in x]
    scores = [f32(z / deviation) if deviation > 0 else 0.0 for z in scores]
    now = [f32(z * f32(0.07)) for z in scores]
    if name in memory:
        before = memory[name][1]
        now = [f32(a + f32(b * f32(0.93))) for a, b in zip(now, before, strict=True)]
    memory[name] = "f", now


def predict(
    mode: int,
    step: float,
    rho: float,
    sigma: float,
    tensor: Tensor,
    memory: Memory,
    signs: list[int],
) -> list[float]:
    """Return the prediction of each element of a tensor."""
    if mode in (0, 4):
        return [0.0] * tensor.size
    previous = memory[f"previous/{tensor.name}"][1]
    magnitude = widen(memory[f"magnitude/{tensor.name}"][1])
    if mode == 1:
        average = widen(memory[f"average/{tensor.name}"][1])
        found = [f32(p * rho) for p in previous]
        if sigma:
            found = [
                f32(p + f32(a * sigma)) for p, a in zip(found, average, strict=True)
            ]
        return found
    if mode == 2:
        pairs = zip(magnitude, previous, strict=True)
        return [f32(math.copysign(m, p) * rho) for m, p in pairs]
    kernel = channels(tensor)[2]
    if mode in (5, 6):
        scores = memory[f"scores/{tensor.name}"][1]
        sizes = [f32(f32(s * sigma) + abs(rho)) for s in scores]
        sizes = [f32(abs(size) * step) for size in sizes]
        if mode == 5:
            return [f32(size * signs[i // kernel]) for i, size in enumerate(sizes)]
        flip = math.copysign(1, rho)
        pairs = zip(sizes, previous, strict=True)
        return [flip * math.copysign(size, p) for size, p in pairs]
    return [f32(m * signs[i // kernel] * rho) for i, m in enumerate(magnitude)]


def read_products(lossy: Table, sections: Sections) -> dict[str, list[float]]:
    """Return the matrix of each tensor that has products, in C order."""
    table = sections["OTAB"]
    ranks = list(table[: len(lossy)])
    there = [(t, rank) for t, rank in zip(lossy, ranks, strict=True) if rank]
    units = struct.unpack_from(f"<{len(there)}f", table, len(lossy))
    doublings = list(table[len(lossy) + 4 * len(there) :])
    factors = [
        Tensor("", "int32", (rank, side))
        for tensor, rank in there
        for side in (channels(tensor)[0], tensor.size // channels(tensor)[0])
    ]
    integers, _ = read_compact_block(sections["OINT"], factors, None)
    found = {}
    for (tensor, rank), unit in zip(there, units, strict=True):
        rows = channels(tensor)[0]
        columns = tensor.size // rows
        left, integers = integers[: rank * rows], integers[rank * rows :]
        right, integers = integers[: rank * columns], integers[rank * columns :]
        own, doublings = doublings[:rank], doublings[rank:]
        found[tensor.name] = [
            f32(
                unit
                * sum(
                    (left[r * rows + i] << own[r]) * right[r * columns + j]
                    for r in range(rank)
                )
            )
            for i in range(rows)
            for j in range(columns)
        ]
    return found


def plain_indices(
    lossy: Table, steps: list[float], sections: Sections, memory: Memory
) -> tuple[list[int], list[int]]:
    """Return the indices of all tensors, and their scales."""
    kinds = [kind for tensor in lossy for kind in scale_kinds(tensor)]
    scales = read_integers(sections["SCAL"], kinds, 4)
    if "scales" in memory:
        before = memory["scales"][1]
        scales = [a + b for a, b in zip(scales, before, strict=True)]

    merge = ContextMap(*sections["IDX"][:4])
    contexts = []
    left = scales
    for tensor, step in zip(lossy, steps, strict=True):
        count = len(scale_kinds(tensor))
        classes = scale_classes(tensor, left[:count])
        left = left[count:]
        if merge.use_history:
            previous = memory[f"previous/{tensor.name}"][1]
            contexts += [
                merge.context(q, history_class(p, step, q))
                for q, p in zip(classes, previous, strict=True)
            ]
        else:
            contexts += [merge.context(q) for q in classes]
    return read_integers(sections["IDX"][4:], contexts, merge.count), scales


def compact_indices(
    lossy: Table, steps: list[float], sections: Sections, memory: Memory
) -> tuple[list[int], list[int]]:
    """Return what `plain_indices` does, of a compact block."""
    past = None
    if "scales" in memory:
        left = list(memory["scales"][1])
        past = []
        for tensor, step in zip(lossy, steps, strict=True):
            before = memory[f"previous/{tensor.name}"][1]
            own = [left.pop(0) for _ in scale_kinds(tensor)]
            past.append(([f32(x / step) if x else 0.0 for x in before], own))
    indices, scales = read_compact_block(sections["CMPT"], lossy, past)
    return indices, [scale for own in scales for scale in own]


def error_bounded(lossy: Table, sections: Sections, memory: Memory) -> list[float]:
    """Return all lossy tensors as one vector, and advance `memory`."""
    rows = list(struct.iter_unpack("<feeB", sections["TENS"]))
    steps = [step for step, *_ in rows]
    if "CMPT" in sections:
        indices, scales = compact_indices(lossy, steps, sections, memory)
    else:
        indices, scales = plain_indices(lossy, steps, sections, memory)
    memory["scales"] = "h", scales

    kernels = [channels(t)[0] * channels(t)[1] for t in lossy]
    kernels = [
        n * (mode in (3, 5)) for n, (*_, mode) in zip(kernels, rows, strict=True)
    ]
    signs: list[int] = []
    if sum(kernels):
        signs = read_integers(sections["SIGN"], [0] * sum(kernels), 1)
    sent: dict[int, float] = {}
    if "RPOS" in sections:
        positions = read_positions(sections["RPOS"], len(indices))
        sent = dict(zip(positions, floats(sections["RVAL"]), strict=True))
    whole = floats(sections.get("RAW", b""))

    products = read_products(lossy, sections) if "OTAB" in sections else {}
    stats = iter(floats(sections.get("STAT", b"")))
    vector: list[float] = []
    for tensor, own, row in zip(lossy, kernels, rows, strict=True):
        step, rho, sigma, mode = row
        start = len(vector)
        if mode == 4:
            x, whole = whole[: tensor.size], whole[tensor.size :]
        else:
            p = predict(mode, step, rho, sigma, tensor, memory, signs[:own])
            if tensor.name in products:
                pairs = zip(p, products[tensor.name], strict=True)
                p = [f32(a + b) for a, b in pairs]
            x = [
                sent.get(i, f32(f32(f32(indices[i]) * step) + p[i - start]))
                for i in range(start, start + tensor.size)
            ]
        signs = signs[own:]
        vector += x
        memory[f"previous/{tensor.name}"] = "f", x
        advance(memory, f"average/{tensor.name}", x)
        advance(memory, f"magnitude/{tensor.name}", [f32(abs(v) / step) for v in x])
        if "STAT" in sections:
            name = f"scores/{tensor.name}"
            advance_scores(memory, name, x, next(stats), next(stats))
    return vector
