"""Entropy-coded symbols, integers and contexts, read with the standard library only.

Written from section 9 of docs/wire-format.md alone; see `plain_reader`.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from .plain_reader import Tensor, bits, f32, number

WEIGHTS = [0] + [(8 + code % 8) << (code // 8) for code in range(136)]


def read_tables(data: bytes, at: int, count: int) -> tuple[list[list[int]], int]:
    """Return the frequencies of each table, and where the words start."""
    sizes = struct.unpack_from(f"<{count}H", data, at)
    at += 2 * count
    k, unary_size, low_size = struct.unpack_from("<BII", data, at)
    at += 9
    unary = bits(data[at : at + unary_size])
    low = bits(data[at + unary_size : at + unary_size + low_size])
    tables: list[list[int]] = []
    before: list[int] = []
    for size in sizes:
        codes: list[int] = []
        for i in range(size):
            z = 0
            while not next(unary):
                z += 1
            z = (z << k) + number(low, k)
            difference = -(z + 1) // 2 if z % 2 else z // 2
            last = codes[-1] if codes else 128
            guess = before[i] if i < len(before) else last
            codes.append(guess + difference)
        tables.append(normalise(codes) if codes else [])
        before = codes or before
    return tables, at + unary_size + low_size


def normalise(codes: list[int]) -> list[int]:
    """Return frequencies that sum to 2^14."""
    weights = [WEIGHTS[code] for code in codes]
    total = sum(weights)
    found = [
        max(1, (2 * w * 2**14 + total) // (2 * total)) if w else 0 for w in weights
    ]
    while excess := sum(found) - 2**14:
        i = found.index(max(found))
        found[i] -= min(excess, found[i] - 1)
    return found


def read_states(words: deque[int], lanes: int) -> list[int]:
    """Read a part's first states."""
    flags = bits(take(words, (lanes + 15) // 16))
    large = [next(flags) for _ in range(lanes)]
    states = [words.popleft() for _ in range(lanes)]
    upper = take(words, (lanes + sum(large) + 1) // 2)
    top = iter(upper[lanes:])
    for i in range(lanes):
        states[i] += upper[i] << 16
        states[i] += next(top) << 24 if large[i] else 0
    return states


def take(words: deque[int], count: int) -> bytes:
    """Read words as bytes."""
    return struct.pack(f"<{count}H", *(words.popleft() for _ in range(count)))


def read_part(
    words: deque[int], states: list[int], contexts: list[int], tables: list[list[int]]
) -> list[int]:
    """Decode a part; `states` is left as it ends."""
    starts = [[sum(table[:i]) for i in range(len(table))] for table in tables]
    lanes = len(states)
    symbols = []
    for row in range(0, len(contexts), lanes):
        for lane, context in enumerate(contexts[row : row + lanes]):
            slot = states[lane] % 2**14
            symbol = bisect_right(starts[context], slot) - 1
            frequency = tables[context][symbol]
            behind = slot - starts[context][symbol]
            states[lane] = frequency * (states[lane] >> 14) + behind
            if states[lane] < 2**16:
                states[lane] = states[lane] << 16 | words.popleft()
            symbols.append(symbol)
    return symbols


def read_symbols(data: bytes, contexts: list[int], count: int) -> list[int]:
    """Decode a symbol stream."""
    n, head, many, few, borrowed, tables, size = struct.unpack_from("<QIHHHHI", data)
    assert (n, tables) == (len(contexts), count)
    frequencies, at = read_tables(data, 24, count)
    words = deque(struct.unpack(f"<{size}H", data[at:]))
    symbols = []
    if head:
        states = read_states(words, many)
        symbols = read_part(words, states, contexts[:head], frequencies)
        assert states[borrowed:] == [2**16] * (many - borrowed)
        words.extendleft(state - 2**16 for state in reversed(states[:borrowed]))
    states = read_states(words, few)
    symbols += read_part(words, states, contexts[head:], frequencies)
    assert states == [2**16] * few
    assert not words
    return symbols


MOST_SYMBOLS, PART = 65_535 * 2_048, 2**26


def read_parts(data: bytes, contexts: list[int], count: int) -> list[int]:
    """Decode a symbol stream, or several of more symbols than one may have."""
    if len(contexts) <= MOST_SYMBOLS:
        return read_symbols(data, contexts, count)
    symbols = []
    for start in range(0, len(contexts), PART):
        (size,) = struct.unpack_from("<Q", data)
        own = contexts[start : start + PART]
        symbols += read_symbols(data[8 : 8 + size], own, count)
        data = data[8 + size :]
    assert not data
    return symbols


def read_integers(data: bytes, contexts: list[int], count: int) -> list[int]:
    """Decode a run of integers."""
    (size,) = struct.unpack_from("<I", data)
    values = read_parts(data[4 : 4 + size], contexts, count)
    raw = data[4 + size :]
    wide = {i: 2 + (s - 64) // 16 for i, s in enumerate(values) if s >= 64}
    for width in sorted(set(wide.values())):
        mine = [i for i, w in wide.items() if w == width]
        length = (len(mine) * width + 7) // 8
        run = bits(raw[:length])
        raw = raw[length:]
        for i in mine:
            values[i] = ((16 + values[i] % 16) << width) + number(run, width)
    assert not raw
    return [-(u + 1) // 2 if u % 2 else u // 2 for u in values]


def channels(tensor: Tensor) -> tuple[int, int, int]:
    """See a tensor as outputs, inputs and positions."""
    if len(tensor.shape) < 2:
        return 1, 1, tensor.size
    outputs, inputs = tensor.shape[:2]
    return outputs, inputs, tensor.size // (outputs * inputs)


def scaled_axes(tensor: Tensor) -> list[int]:
    """Return the axes that have scales."""
    shape = channels(tensor)
    return [a for a in range(3) if shape[a] > 1 and tensor.size >= 48 * shape[a]]


def scale_kinds(tensor: Tensor) -> list[int]:
    """Return the context of each scale of a tensor."""
    shape = channels(tensor)
    return [0, *(a + 1 for a in scaled_axes(tensor) for _ in range(shape[a]))]


def scale_classes(tensor: Tensor, scales: list[int]) -> list[int]:
    """Return the scale class of each element of a tensor."""
    shape = channels(tensor)
    parts = [[0] * length for length in shape]
    at = 1
    for axis in scaled_axes(tensor):
        parts[axis] = scales[at : at + shape[axis]]
        at += shape[axis]
    return [
        min(max(scales[0] + o + i + k + 32, 0), 95)
        for o in parts[0]
        for i in parts[1]
        for k in parts[2]
    ]


def history_class(previous: float, step: float, scale_class: int) -> int:
    """Compare an element of the last reconstruction with its scale."""
    (pattern,) = struct.unpack("<I", struct.pack("<f", f32(abs(previous) / step)))
    h = (pattern >> 21) - 508 - (scale_class - 32)
    return 0 if h < -2 else 2 if h >= 4 else 1


@dataclass(frozen=True)
class ContextMap:
    """Four bytes that merge scale and history classes."""

    shift: int
    first: int
    width: int
    use_history: int

    @property
    def count(self) -> int:
        return 3 * self.width if self.use_history else self.width

    def context(self, scale_class: int, history: int = 0) -> int:
        last = self.first + self.width - 1
        merged = min(max(scale_class >> self.shift, self.first), last) - self.first
        return merged + self.width * history * self.use_history


def read_block(data: bytes, tensors: list[Tensor]) -> list[int]:
    """Decode a block: scales, context map, integers."""
    (size,) = struct.unpack_from("<I", data)
    kinds = [kind for tensor in tensors for kind in scale_kinds(tensor)]
    scales = read_integers(data[4 : 4 + size], kinds, 4)
    merge = ContextMap(*data[4 + size : 8 + size])
    assert not merge.use_history
    contexts: list[int] = []
    for tensor in tensors:
        count = len(scale_kinds(tensor))
        contexts += map(merge.context, scale_classes(tensor, scales[:count]))
        scales = scales[count:]
    return read_integers(data[8 + size :], contexts, merge.count)
