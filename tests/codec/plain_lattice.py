"""Lattices: updates, points and published models, read without numpy.

Written from docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from .plain_compact import read_compact_block
from .plain_error_bounded import Memory, narrow, read_products, widen
from .plain_reader import (
    Decoded,
    Sections,
    Table,
    Tensor,
    bits,
    f32,
    layout_digest,
    number,
    owners,
    read_as_they_are,
    read_exact,
    read_frame,
    read_table,
    table_bytes,
    to_bytes,
)
from .plain_symbols import read_block, scale_kinds


def read_small_block(data: bytes, tensors: Table) -> list[int]:
    """Decode a block without tables."""
    widths = data[: len(tensors)]
    present = [
        (t, b) for t, b in zip(tensors, widths, strict=True) if b != 255 and t.size
    ]
    low_bits = sum(t.size * b for t, b in present)
    split = len(data) - (low_bits + 7) // 8
    unary = bits(data[len(tensors) : split])
    low = bits(data[split:])
    values: dict[str, list[int]] = {}
    for tensor, _ in present:
        values[tensor.name] = []
        for _ in range(tensor.size):
            quotient = 0
            while not next(unary):
                quotient += 1
            values[tensor.name].append(quotient)
    for tensor, b in present:
        for i, quotient in enumerate(values[tensor.name]):
            u = (quotient << b) + number(low, b)
            values[tensor.name][i] = -(u + 1) // 2 if u % 2 else u // 2
    return [v for t in tensors for v in values.get(t.name, [0] * t.size)]


def read_integers_of(sections: Sections, tensors: Table, skip: int = 0) -> list[int]:
    """Decode the integers of tensors from the section that has them."""
    if "RICE" in sections:
        return read_small_block(sections["RICE"][skip:], tensors)
    data = sections["LATS" if "LATS" in sections else "LATT"][skip:]
    return read_block(data, tensors) if tensors else []


def lattice(
    config: dict[str, Any], lossy: Table, sections: Sections, memory: Memory
) -> list[float]:
    offsets = [0] * len(lossy)
    if "STEP" in sections:
        offsets = list(struct.unpack(f"<{len(lossy)}b", sections["STEP"]))
    tag = next(t for t in ("RICE", "CMPT", "LATS", "LATT") if t in sections)
    assert (tag == "CMPT") == (config.get("compact", False) and tag != "RICE")
    assert tag in ("RICE", "CMPT") or (tag == "LATS") == ("STEP" in sections)
    exponent, multiple = struct.unpack_from("<hB", sections[tag])
    steps = []
    for tensor, offset in zip(lossy, offsets, strict=True):
        fine = 6 if tensor.size < config.get("fine_below", 0) else 0
        steps.append(2.0 ** (exponent + offset - fine) if offset != -128 else 0.0)
    kept = [i for i, offset in enumerate(offsets) if offset != -128]
    scales = [memory.get(f"scales/{t.name}", ("h", []))[1] for t in lossy]
    if tag == "CMPT":
        past = None
        if memory:
            past = [
                (in_steps(lossy[i], memory, steps[i] * multiple), scales[i])
                for i in kept
            ]
        block = sections["CMPT"][3:]
        integers, told = read_compact_block(block, [lossy[i] for i in kept], past)
        for i, own in zip(kept, told, strict=True):
            scales[i] = own
    else:
        integers = read_integers_of(sections, [lossy[i] for i in kept], 3)
    products = read_products(lossy, sections) if "OTAB" in sections else {}
    found = iter(integers)
    vector: list[float] = []
    for i, tensor in enumerate(lossy):
        own = [0.0] * tensor.size
        if i in kept:
            own = [f32(f32(f32(next(found)) * steps[i]) * multiple) for _ in own]
        if config.get("memory"):
            memory[f"previous/{tensor.name}"] = "H", narrow(own)
            zeros = [0] * len(scale_kinds(tensor))
            memory[f"scales/{tensor.name}"] = "h", scales[i] or zeros
        if tensor.name in products:
            pairs = zip(own, products[tensor.name], strict=True)
            own = [f32(a + b) for a, b in pairs]
        vector += own
    return vector


def in_steps(tensor: Tensor, memory: Memory, step: float) -> list[float]:
    """Return the previous elements of a tensor over its step."""
    before = widen(memory[f"previous/{tensor.name}"][1])
    return [f32(x / f32(step)) if x else 0.0 for x in before]


def lattice_point(
    data: bytes, tensors: Table, base: tuple[int, list[int]] | None
) -> tuple[int, list[int]]:
    """Return exponent and indices of a point, given those of its base."""
    grid, unit, held, digest = struct.unpack_from("<hh8s8s", data)
    if held == bytes(8):
        base = grid, [0] * len(owners(tensors))
    assert base is not None, "the point needs another one"
    exponent, indices = base
    finest = min(grid, unit, exponent)
    found = []
    for index, d in zip(indices, read_block(data[20:], tensors), strict=True):
        total = (index << (exponent - finest)) + (d << (unit - finest))
        assert total % 2 ** (grid - finest) == 0
        found.append(total >> (grid - finest))
    body = struct.pack(f"<h{len(found)}i", grid, *found)
    assert digest == struct.pack("<II", zlib.crc32(body), zlib.adler32(body))
    return grid, found


def model_digest(table: Table, content: dict[str, bytes]) -> bytes:
    """Return the digest of a model."""
    data = table_bytes(table) + b"".join(content[tensor.name] for tensor in table)
    return struct.pack("<II", zlib.crc32(data), zlib.adler32(data))


def lattice_model(data: bytes, base: Decoded | None) -> Decoded:
    """Return each tensor with its little-endian elements, given those of the base."""
    frame = read_frame(data)
    later = {"compact"} if "CMPT" in frame.sections else set()
    assert frame.config.keys() - {"halves"} == {"id", "exact_below"} | later
    assert frame.config.get("compact", True) is True
    assert frame.config.get("halves", 1) == 1
    held, digest = struct.unpack("<8s8s", frame.sections["HEAD"])
    old: dict[str, bytes] = {}
    if held == bytes(8):
        table = read_table(frame.sections["TABL"])
    else:
        assert base is not None, "the frame needs a base"
        table = [tensor for tensor, _ in base]
        old = {tensor.name: content for tensor, content in base}
        assert held == model_digest(table, old)
    assert layout_digest(table) == frame.layout
    least = max(frame.config["exact_below"], 1)
    dtypes = {"float32", "float64"}
    dtypes |= {"float16", "bfloat16"} if "halves" in frame.config else set()
    lossy = [t for t in table if t.dtype in dtypes and t.size >= least]
    exact = [tensor for tensor in table if tensor not in lossy]
    halves = []
    if "HALF" in frame.sections:
        halves = [t for t in exact if t.dtype in ("float16", "bfloat16")]
    content = read_exact([t for t in exact if t not in halves], frame.sections)
    for name in content if old else ():
        content[name] = bytes(
            a ^ b for a, b in zip(content[name], old[name], strict=True)
        )
    if halves:
        content |= read_halves(frame.sections["HALF"], halves, old)
    if lossy:
        units = struct.unpack(f"<{len(lossy)}h", frame.sections["UNIT"])
        kept = [t for t, unit in zip(lossy, units, strict=True) if unit != -32768]
        if "CMPT" in frame.sections:
            changed, _ = read_compact_block(frame.sections["CMPT"], kept, None)
        else:
            changed = read_integers_of(frame.sections, kept)
        changes = iter(changed)
        whole = {}
        if "ASIS" in frame.sections:
            whole = read_as_they_are(frame.sections["ASIS"], lossy)
        for tensor, unit in zip(lossy, units, strict=True):
            if unit == -32768:
                same = old.get(tensor.name, bytes(tensor.size * tensor.itemsize))
                content[tensor.name] = whole.get(tensor.name, same)
                continue
            zeros = bytes(tensor.size * tensor.itemsize)
            start = elements(old.get(tensor.name, zeros), tensor.dtype)
            content[tensor.name] = b"".join(
                to_bytes(value + next(changes) * 2.0**unit, tensor.dtype)
                for value in start
            )
    assert digest == model_digest(table, content)
    return [(tensor, content[tensor.name]) for tensor in table]


def elements(data: bytes, dtype: str) -> list[float]:
    """Return the numbers of a floating-point tensor."""
    if dtype == "bfloat16":
        words = struct.unpack(f"<{len(data) // 2}H", data)
        data, dtype = (
            struct.pack(f"<{len(words)}I", *(w << 16 for w in words)),
            "float32",
        )
    form = {"float16": "e", "float32": "f", "float64": "d"}[dtype]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(form)}{form}", data))


def read_halves(data: bytes, tensors: Table, old: dict[str, bytes]) -> dict[str, bytes]:
    """Return 16-bit tensors by the changes of their ordinals."""
    size = (len(tensors) + 7) // 8
    changed = bits(data[:size])
    kept = [tensor for tensor in tensors if next(changed)]
    body = data[size + 1 :]
    changes: list[int] = []
    if data[size]:
        changes = read_small_block(body, kept)
    elif kept:
        changes = read_block(body, kept)
    content = {tensor.name: old[tensor.name] for tensor in tensors}
    at = 0
    for tensor in kept:
        words = struct.unpack(f"<{tensor.size}H", old[tensor.name])
        ordinals = [word if word < 0x8000 else 0x7FFF - word for word in words]
        moved = [o + changes[at + i] for i, o in enumerate(ordinals)]
        at += tensor.size
        content[tensor.name] = struct.pack(
            f"<{tensor.size}H", *(m if m >= 0 else 0x7FFF - m for m in moved)
        )
    return content
