"""Compact blocks, read with the standard library only.

Written from section 9 of docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import product

from .plain_reader import Tensor, bits, number
from .plain_symbols import (
    ContextMap,
    channels,
    history_class,
    normalise,
    read_part,
    read_states,
    scale_classes,
    scale_kinds,
    scaled_axes,
)

Past = list[tuple[list[float], list[int]]]
"""Of each tensor its previous elements, in steps of the frame, and its scales."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def read_tables(data: bytes, at: int, count: int) -> tuple[list[list[int]], int]:
    """Return the frequencies of each table, and where the rest starts."""
    sizes, k = data[at : at + count], data[at + count]
    at += count + 1
    total = sum(sizes)
    unary = bits(data[at:])
    quotients, used = [], 0
    for _ in range(total):
        zeros = 0
        while not next(unary):
            zeros += 1
        quotients.append(zeros)
        used += zeros + 1
    at += (used + 7) // 8
    low = bits(data[at:])
    differences = []
    for quotient in quotients:
        z = (quotient << k) + number(low, k)
        differences.append(-(z + 1) // 2 if z % 2 else z // 2)
    tables: list[list[int]] = []
    before: list[int] = []
    for size in sizes:
        codes: list[int] = []
        for i in range(size):
            last = codes[-1] if codes else 128
            guess = before[i] if i < len(before) else last
            codes.append(guess + differences.pop(0))
        tables.append(normalise(codes) if codes else [])
        before = codes or before
    return tables, at + (k * total + 7) // 8


def read_groups(data: bytes, at: int, sizes: list[int]) -> tuple[list[int], int]:
    """Return integers without tables, and where the rest starts."""
    widths = data[at : at + len(sizes)]
    at += len(sizes)
    each = [b for b, n in zip(widths, sizes, strict=True) for _ in range(n)]
    unary = bits(data[at:])
    quotients, used = [], 0
    for b in each:
        zeros = 0
        while b != 255 and not next(unary):
            zeros += 1
        quotients.append(zeros)
        used += zeros + (b != 255)
    at += (used + 7) // 8
    low = bits(data[at:])
    found = []
    for b, quotient in zip(each, quotients, strict=True):
        u = 0 if b == 255 else (quotient << b) + number(low, b)
        found.append(-(u + 1) // 2 if u % 2 else u // 2)
    return found, at + (sum(b for b in each if b != 255) + 7) // 8


def level(s: int, ratio: int, slope: int, sign: int) -> int:
    """Return by how many eighths of an octave a symbol is more frequent than 0."""
    if s == 0:
        return 0
    fall = (8 + 4 * (slope % 2)) << (slope // 2)
    if s < 16:
        magnitude = (s + 1) // 2
        own = max(sign, 0) if s % 2 else max(-sign, 0)
        return 4 * ratio - (fall * (magnitude - 1) >> 20) - own
    w = 2 + (s - 16) // 4
    magnitude = ((4 + s % 4) << (w - 1)) + (1 << (w - 2))
    return 4 * ratio - (fall * (magnitude - 1) >> 20) + 8 * w - min(abs(sign), 8)


def parametric_tables(
    data: bytes, at: int, count: int, width: int
) -> tuple[list[list[int]], int]:
    """Return the frequencies of tables of parameters, and where the rest starts."""
    values, at = read_groups(data, at, [2, count, count])
    size, sign = values[0] + 1, values[1]
    rows = []
    for first, differences in (
        (0, values[2 : 2 + count]),
        (40, values[2 + count :]),
    ):
        row: list[int] = []
        for i, difference in enumerate(differences):
            before = i - 1 if i % width else i - width
            row.append(difference + (row[before] if before >= 0 else first))
        rows.append(row)
    tables = []
    for ratio, slope in zip(*rows, strict=True):
        levels = [level(s, ratio, slope, sign) for s in range(size)]
        codes = [max(136 + own - max(levels), 1) for own in levels]
        tables.append(normalise(codes))
    return tables, at


def read_run(
    data: bytes, at: int, contexts: list[int], count: int
) -> tuple[list[int], int]:
    """Decode a run of integers; return them and where it ends."""
    tables, at = read_tables(data, at, count)
    return read_words(data, at, contexts, tables)


def read_words(
    data: bytes, at: int, contexts: list[int], tables: list[list[int]]
) -> tuple[list[int], int]:
    """Decode what a run has behind its tables; return it and where it ends."""
    size, at = varint(data, at)
    lanes, at = varint(data, at)
    head = many = borrowed = 0
    if lanes % 2:
        head, at = varint(data, at)
        many, at = varint(data, at)
        borrowed, at = varint(data, at)
    words = deque(struct.unpack_from(f"<{size}H", data, at))
    at += 2 * size
    values = []
    if head:
        states = read_states(words, many)
        values = read_part(words, states, contexts[:head], tables)
        assert states[borrowed:] == [2**16] * (many - borrowed)
        words.extendleft(state - 2**16 for state in reversed(states[:borrowed]))
    states = read_states(words, lanes // 2)
    values += read_part(words, states, contexts[head:], tables)
    assert states == [2**16] * (lanes // 2)
    assert not words
    wide = {i: 2 + (s - 16) // 4 for i, s in enumerate(values) if s >= 16}
    for width in sorted(set(wide.values())):
        mine = [i for i, w in wide.items() if w == width]
        length = (len(mine) * width + 7) // 8
        run = bits(data[at : at + length])
        at += length
        for i in mine:
            values[i] = ((4 + values[i] % 4) << width) + number(run, width)
    return [-(u + 1) // 2 if u % 2 else u // 2 for u in values], at


def units_of(tensor: Tensor, form: int) -> list[int]:
    """Return the unit of each scale."""
    shape = channels(tensor)
    units = [1]
    for axis in scaled_axes(tensor):
        units += [2 ** (form >> (2 + 2 * axis) & 3)] * shape[axis]
    return units


def negatives(
    tensor: Tensor, mode: int, signs: list[int], past: list[float]
) -> list[bool]:
    """Return which integers of a tensor are multiplied by -1."""
    if mode == 3:
        return [value < 0 for value in past]
    if mode == 0:
        return [False] * tensor.size
    places = product(*map(range, channels(tensor)))
    return [bool(signs[place[mode - 1]]) for place in places]


def read_compact_block(
    data: bytes, tensors: list[Tensor], past: Past | None
) -> tuple[list[int], list[list[int]]]:
    """Return the integers of tensors, and the scales of each."""
    if not data:
        return [], [[] for _ in tensors]
    flags, first, width = data[:3]
    assert not flags & 0x80
    at = 4 if flags & 16 else 3 + len(tensors)
    forms = list(data[3:at]) * (len(tensors) if flags & 16 else 1)
    counts = [
        channels(t)[f % 4 - 1] if f % 4 in (1, 2) else 0
        for t, f in zip(tensors, forms, strict=True)
    ]
    packed = bits(data[at:])
    signs = [[next(packed) for _ in range(count)] for count in counts]
    at += (sum(counts) + 7) // 8
    merge = ContextMap(flags & 7, first, width, flags >> 3 & 1)
    kinds = [kind for tensor in tensors for kind in scale_kinds(tensor)]
    how = 0
    if flags & 64:
        how, at = data[at], at + 1
        assert 1 <= how <= 3
    if how & 1:
        sizes = [kinds.count(kind) for kind in range(4)]
        grouped, at = read_groups(data, at, [size for size in sizes if size])
        order = sorted(range(len(kinds)), key=lambda i: kinds[i])
        levels = [value for _, value in sorted(zip(order, grouped, strict=True))]
    else:
        levels, at = read_run(data, at, kinds, 4)
    contexts: list[int] = []
    scales: list[list[int]] = []
    for i, (tensor, form) in enumerate(zip(tensors, forms, strict=True)):
        units = units_of(tensor, form)
        own = [levels.pop(0) * unit for unit in units]
        if flags & 32:
            assert past is not None
            own = [a + b for a, b in zip(own, past[i][1], strict=True)]
        scales.append(own)
        classes = scale_classes(tensor, own)
        if merge.use_history:
            assert past is not None
            seen = zip(classes, past[i][0], strict=True)
            contexts += [merge.context(c, history_class(x, 1.0, c)) for c, x in seen]
        else:
            contexts += [merge.context(c) for c in classes]
    if how & 2:
        tables, at = parametric_tables(data, at, merge.count, width)
    else:
        tables, at = read_tables(data, at, merge.count)
    values, at = read_words(data, at, contexts, tables)
    assert at == len(data)
    found: list[int] = []
    for i, (tensor, form) in enumerate(zip(tensors, forms, strict=True)):
        before = past[i][0] if past else []
        for negative in negatives(tensor, form % 4, signs[i], before):
            value = values[len(found)]
            found.append(-value if negative else value)
    return found, scales
