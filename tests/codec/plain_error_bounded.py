"""The codec `error_bounded`, read with the standard library only.

Written from docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import math
import struct
from typing import Any

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


def error_bounded(lossy: Table, sections: Sections, memory: Memory) -> list[float]:
    """Return all lossy tensors as one vector, and advance `memory`."""
    rows = list(struct.iter_unpack("<feeB", sections["TENS"]))
    known = "scales" in memory
    kinds = [kind for tensor in lossy for kind in scale_kinds(tensor)]
    scales = read_integers(sections["SCAL"], kinds, 4)
    if known:
        before = memory["scales"][1]
        scales = [a + b for a, b in zip(scales, before, strict=True)]
    memory["scales"] = "h", scales

    merge = ContextMap(*sections["IDX"][:4])
    contexts = []
    left = scales
    for tensor, (step, *_) in zip(lossy, rows, strict=True):
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
    indices = read_integers(sections["IDX"][4:], contexts, merge.count)

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

    stats = iter(floats(sections.get("STAT", b"")))
    vector: list[float] = []
    for tensor, own, row in zip(lossy, kernels, rows, strict=True):
        step, rho, sigma, mode = row
        start = len(vector)
        if mode == 4:
            x, whole = whole[: tensor.size], whole[tensor.size :]
        else:
            p = predict(mode, step, rho, sigma, tensor, memory, signs[:own])
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
