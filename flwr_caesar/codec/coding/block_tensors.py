"""What a compact block does with each of its tensors: sums, signs, symbols, classes.

Where there is a compiled kernel, one call of it goes through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.vector import Vector
from ..kernel import compiled, contiguous
from ..kernel.interface import Kernel
from .block_shape import BlockShape
from .blocks import tensor_blocks
from .compact_symbols import Far, to_compact
from .contexts import (
    CLASSES,
    Classes,
    ContextMap,
    Scales,
    SliceSums,
    element_classes,
    history_classes,
)
from .counts import Symbols
from .integers import Integers
from .past import Past
from .signs import SignMode, Signs, SignSums

_COPIED = 1 << 20  # integers of which a copy with other signs is made
_STEP = np.float32(1)


def block_sums(
    indices: Integers, block: BlockShape, past: Past | None
) -> list[tuple[SliceSums, SignSums]]:
    """Return the sums of each tensor's magnitudes, and of its signs."""
    found = [(SliceSums(shape), SignSums(shape)) for shape in block.shapes]
    if (native := compiled()) is not None:
        _set_sums(native, indices, block, found)
    for i, ((sums, signs), part) in enumerate(zip(found, block.parts, strict=True)):
        shape = block.shapes[i]
        own, previous = indices[part].reshape(shape), _previous(past, i, block)
        if native is not None and previous is None:
            continue
        for at, _ in tensor_blocks(shape):
            if native is None:
                sums.add(at, own[at].astype(np.int32, copy=False))
                signs.add(at, own[at])
            if previous is not None:
                signs.add_history(at, own[at], previous)
    return found


def _set_sums(
    native: Kernel,
    indices: Integers,
    block: BlockShape,
    found: Sequence[tuple[SliceSums, SignSums]],
) -> None:
    channels = block.rows[:, :2].sum(axis=1).tolist()
    sums = np.empty(len(block.kinds))
    signs = np.empty(sum(channels), np.int64)
    active = np.empty(len(found), np.int64)
    native.block_sums(contiguous(indices, np.int32), block.rows, sums, signs, active)
    first = 0
    for i, (own_sums, own_signs) in enumerate(found):
        own_sums.set(sums[block.scales[i]])
        own_signs.set(signs[first : first + channels[i]], int(active[i]))
        first += channels[i]


def flip_block(
    indices: Integers, block: BlockShape, signs: Sequence[Signs], past: Past | None
) -> None:
    """Change the signs of a block's integers, in place."""
    modes = [own.mode for own in signs]
    if not any(modes):
        return
    native = compiled()
    if native is not None and SignMode.HISTORY not in modes:
        negative = np.concatenate([own.negative for own in signs]).view(np.uint8)
        native.block_flip(indices, block.rows, np.array(modes, np.uint8), negative)
        return
    for i, (own, part) in enumerate(zip(signs, block.parts, strict=True)):
        if own.mode is SignMode.OWN:
            continue
        shape = block.shapes[i]
        previous = _previous(past, i, block) if own.mode is SignMode.HISTORY else None
        shaped = indices[part].reshape(shape)
        for at, _ in tensor_blocks(shape):
            shaped[at] = own.flip(shaped[at], at, previous)


def block_symbols(
    indices: Integers, block: BlockShape, signs: Sequence[Signs], past: Past | None
) -> tuple[Symbols, list[Far]]:
    """Return what `to_compact` makes of the integers with their signs changed."""
    if len(indices) <= _COPIED:
        flipped = indices.astype(np.int32)
        flip_block(flipped, block, signs, past)
        found, wide = to_compact(flipped)
        return found, [wide]
    symbols = np.empty(len(indices), np.uint16)
    far = []
    for i, (own, part) in enumerate(zip(signs, block.parts, strict=True)):
        shape = block.shapes[i]
        values, shaped = indices[part].reshape(shape), symbols[part].reshape(shape)
        previous = _previous(past, i, block)
        for at, _ in tensor_blocks(shape):
            piece = own.flip(values[at], at, previous)
            found, wide = to_compact(piece.reshape(-1))
            shaped[at] = found.reshape(piece.shape)
            far.append(wide)
    return symbols, far


def block_classes(
    scales: Scales, block: BlockShape, past: Past | None
) -> tuple[Classes, Classes | None]:
    """Return the scale classes of a block's elements, and their history classes."""
    n = block.parts[-1].stop
    classes = np.empty(n, np.uint8)
    histories = np.empty(n, np.uint8) if past else None
    if (native := compiled()) is not None:
        whole = 0, 0, CLASSES - 1
        native.block_contexts(scales, block.rows, *whole, classes)
    for i, part in enumerate(block.parts):
        shape, previous = block.shapes[i], _previous(past, i, block)
        if native is None:
            own = scales[block.scales[i]]
            for flat, element, seen in element_classes(own, shape, previous, _STEP):
                classes[part][flat] = element
                if histories is not None and seen is not None:
                    histories[part][flat] = seen
        elif previous is not None and histories is not None:
            for at, flat in tensor_blocks(shape):
                was = previous[at].reshape(-1)
                seen = history_classes(was, _STEP, classes[part][flat])
                histories[part][flat] = seen
    return classes, histories


def block_contexts(
    scales: Scales, block: BlockShape, contexts: ContextMap, past: Past | None
) -> Classes:
    """Return the contexts of a block's elements."""
    index = np.empty(block.parts[-1].stop, np.uint8)
    native = compiled()
    if native is not None and not contexts.use_history:
        last = contexts.first + contexts.width - 1
        kept = contexts.shift, contexts.first, last
        native.block_contexts(scales, block.rows, *kept, index)
        return index
    for i, part in enumerate(block.parts):
        shape = block.shapes[i]
        previous = _previous(past, i, block) if contexts.use_history else None
        own = scales[block.scales[i]]
        for flat, element, seen in element_classes(own, shape, previous, _STEP):
            index[part][flat] = contexts.contexts(element, seen)
    return index


def _previous(past: Past | None, i: int, block: BlockShape) -> Vector | None:
    return None if past is None else past.previous(i).reshape(block.shapes[i])
