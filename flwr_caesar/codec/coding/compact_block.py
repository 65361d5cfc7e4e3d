"""Integers of several tensors with little beside them: the compact form of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.frame import stored_size
from ..contract.layout import Array, TensorSpec
from ..contract.vector import Vector, slices
from .blocks import Shape3, tensor_blocks
from .class_counts import ClassCounts
from .compact_run import decode_words, encode_words
from .compact_scales import Levels, read_levels
from .compact_symbols import to_compact
from .compact_tables import CompactTables, read_tables
from .contexts import (
    ContextMap,
    Scales,
    SliceSums,
    as_channels,
    check_scales,
    count_scales,
    element_classes,
    scale_axes,
    scale_kinds,
)
from .integers import Integers
from .signs import SignMode, Signs, SignSums, count_channels
from .slices import Slices
from .small_block import FEW, encode_small_block

COMPACT_TAG = "CMPT"
"""Of the section that holds such a block."""

_SHIFT, _HISTORY, _ALIKE, _RELATIVE, _BRIEF = 0x07, 0x08, 0x10, 0x20, 0x40
_IN_GROUPS, _PARAMETRIC = 1, 2
_UNITS = 1, 2, 4, 8
_HEAD_BYTES = 3
_WORTH_TABLES = 96


@frozen
class Past:
    """What both sides know of the tensors from before.

    Parameters
    ----------
    previous : callable
        Given the number of a tensor, its last values in steps of this round, flat,
        float32.
    scales : sequence of ndarray of int16
        The scales of each tensor in the last round.
    """

    previous: Callable[[int], Vector]
    scales: Sequence[Scales]

    def at_hand(self) -> Past:
        """Return the same with all values in memory, for those who ask twice."""
        values = [self.previous(i) for i in range(len(self.scales))]
        return Past(values.__getitem__, self.scales)

    def only(self, kept: Sequence[int]) -> Past:
        """Return what is known of some of the tensors."""
        return Past(lambda i: self.previous(kept[i]), [self.scales[i] for i in kept])


def in_steps(values: Vector, step: np.float32) -> Vector:
    """Return values over a step, in place; a value of 0 is 0 whatever the step."""
    with np.errstate(over="ignore", divide="ignore"):
        if step:
            return np.divide(values, step, out=values)
        return np.divide(values, step, out=values, where=values != 0)


@frozen
class _Form:
    """How a tensor is coded.

    Parameters
    ----------
    mode : SignMode
        Where its integers have their signs from.
    units : tuple of int
        Quarters of an octave that the scales of each axis are multiples of.
    """

    mode: SignMode = SignMode.OWN
    units: tuple[int, int, int] = 1, 1, 1

    def to_byte(self) -> int:
        a, b, c = (_UNITS.index(unit) for unit in self.units)
        return self.mode | a << 2 | b << 4 | c << 6

    @classmethod
    def of(cls, byte: int) -> _Form:
        a, b, c = (_UNITS[byte >> shift & 3] for shift in (2, 4, 6))
        return cls(SignMode(byte & 3), (a, b, c))

    def scale_units(self, shape: Shape3) -> Array:
        """Return the unit of each scale of a tensor."""
        parts = [np.full(shape[a], self.units[a], np.int32) for a in scale_axes(shape)]
        return np.concatenate([np.ones(1, np.int32), *parts])


@frozen
class _Tensor:
    """A tensor as it is coded."""

    shape: Shape3
    form: _Form
    signs: Signs
    scales: Scales
    slices: Slices


def encode_compact_block(
    indices: Integers, specs: Sequence[TensorSpec], past: Past | None = None
) -> tuple[bytes, list[Scales]]:
    """Entropy-code the integers of tensors, concatenated in order.

    What `lattice_block.encode_block` does, with signs of channels or of the last round,
    contexts of the last round, shorter tables, and no lengths that follow from others.

    Parameters
    ----------
    indices : ndarray of int32, shape (n,)
        Integers; `n` is the sizes' sum.
    specs : sequence of TensorSpec
        Tensors, in order.
    past : Past, optional
        What both sides know.

    Returns
    -------
    tuple of bytes and list of ndarray of int16
        The block, and the scales of each tensor, for the next `Past`.
    """
    if not len(indices):
        return b"", []
    n = len(indices)
    past = past.at_hand() if past and n < FEW else past
    parts = slices(specs)
    tensors = []
    for i, (spec, part) in enumerate(zip(specs, parts, strict=True)):
        shape = as_channels(spec.shape)
        previous = past.previous(i).reshape(shape) if past else None
        tensors.append(_describe(indices[part].reshape(shape), previous))
    kinds = np.concatenate([scale_kinds(tensor.shape) for tensor in tensors])
    scales = np.concatenate([tensor.scales for tensor in tensors])
    units = np.concatenate([t.form.scale_units(t.shape) for t in tensors])
    sliced = Slices.join([tensor.slices for tensor in tensors])
    before = past.scales if past else None
    levels, scales = Levels.choose(scales, units, before, kinds, sliced)
    symbols = np.empty(n, np.uint16)
    classes = np.empty(n, np.uint8)
    histories = np.empty(n, np.uint8) if past else None
    far = []
    first = 0
    for i, (tensor, part) in enumerate(zip(tensors, parts, strict=True)):
        shape = tensor.shape
        own, shaped = indices[part].reshape(shape), symbols[part].reshape(shape)
        previous = past.previous(i).reshape(shape) if past else None
        for at, _ in tensor_blocks(shape):
            piece = tensor.signs.flip(own[at], at, previous)
            found, wide = to_compact(piece.reshape(-1))
            shaped[at] = found.reshape(piece.shape)
            far.append(wide)
        count = count_scales(shape)
        for flat, element, seen in element_classes(
            scales[first : first + count], shape, previous, np.float32(1)
        ):
            classes[part][flat] = element
            if histories is not None and seen is not None:
                histories[part][flat] = seen
        first += count
    tables = CompactTables.choose(ClassCounts(symbols, classes, histories))
    index = tables.contexts.contexts(classes, histories)
    del classes, histories
    in_groups, told = levels.to_bytes(kinds)
    how = _IN_GROUPS * in_groups | _PARAMETRIC * tables.is_parametric
    flags = _RELATIVE * levels.is_relative | (_BRIEF if how else 0)
    block = [
        _pack_head(tables.contexts, tensors, flags),
        bytes([how] if how else []),
        told,
        tables.told,
        encode_words(symbols, far, index, tables.codes, tables.bits),
    ]
    return b"".join(block), _split(scales, [tensor.shape for tensor in tensors])


def encode_compact_shorter(
    indices: Integers, specs: Sequence[TensorSpec], past: Past | None = None
) -> tuple[bool, bytes, list[Scales]]:
    """Return the shorter of `encode_small_block` and `encode_compact_block`.

    Returns
    -------
    tuple of bool, bytes and list of ndarray
        Whether it is the small one, the block, and what `encode_compact_block` returns
        beside it; nothing of a small one.
    """
    if len(indices) >= FEW:
        return False, *encode_compact_block(indices, specs, past)
    small = encode_small_block(indices, specs)
    if past is None and len(small) <= _WORTH_TABLES:
        return True, small, []
    block, scales = encode_compact_block(indices, specs, past)
    if len(small) <= len(block) or stored_size(small) <= len(block):
        return True, small, []
    return False, block, scales


def _split(scales: Scales, shapes: Sequence[Shape3]) -> list[Scales]:
    ends = np.cumsum([count_scales(shape) for shape in shapes])
    return [part.copy() for part in np.split(scales, ends[:-1])]


def _describe(indices: Integers, previous: Vector | None) -> _Tensor:
    shape = indices.shape[0], indices.shape[1], indices.shape[2]
    sums, signs = SliceSums(shape), SignSums(shape)
    for at, _ in tensor_blocks(shape):
        piece = indices[at]
        sums.add(at, piece)
        signs.add(at, piece, previous)
    best = signs.best(with_history=previous is not None)
    scales, found = sums.coarse_scales(signs.active)
    units = [1, 1, 1]
    for axis, unit in zip(scale_axes(shape), found, strict=True):
        units[axis] = unit
    form = _Form(best.mode, (units[0], units[1], units[2]))
    return _Tensor(shape, form, best, scales, sums.slices())


def _pack_head(contexts: ContextMap, tensors: Sequence[_Tensor], flags: int) -> bytes:
    forms = bytes(tensor.form.to_byte() for tensor in tensors)
    alike = len(set(forms)) == 1
    flags |= contexts.shift | _HISTORY * contexts.use_history | _ALIKE * alike
    negative = [tensor.signs.negative for tensor in tensors]
    return b"".join(
        [
            bytes([flags, contexts.first, contexts.width]),
            forms[:1] if alike else forms,
            np.packbits(np.concatenate(negative)).tobytes(),
        ]
    )


def decode_compact_block(
    data: bytes, specs: Sequence[TensorSpec], past: Past | None = None
) -> tuple[Integers, list[Scales]]:
    """Decode what `encode_compact_block` wrote for the same tensors and past.

    Raises
    ------
    CodecError
        If the bytes are not exactly such an encoding.
    """
    total = sum(spec.size for spec in specs)
    if not total:
        if data:
            raise CodecError("a block without elements has bytes")
        return np.empty(0, np.int32), []
    shapes = [as_channels(spec.shape) for spec in specs]
    head, offset = _Head.read(data, shapes)
    contexts, signs = head.contexts, head.signs
    if past is None and head.needs_past:
        raise CodecError("block uses a history that it does not have")
    kinds = np.concatenate([scale_kinds(shape) for shape in shapes])
    levels, offset = read_levels(
        data, offset, kinds, in_groups=bool(head.how & _IN_GROUPS)
    )
    units = [f.scale_units(s) for f, s in zip(head.forms, shapes, strict=True)]
    wide = levels.astype(np.int64) * np.concatenate(units)
    if past is not None and head.is_relative:
        wide += np.concatenate(past.scales)
    scales = check_scales(wide)
    index = np.empty(total, np.uint8)
    first = 0
    for i, (shape, part) in enumerate(zip(shapes, slices(specs), strict=True)):
        previous = None
        if past is not None and contexts.use_history:
            previous = past.previous(i).reshape(shape)
        count = count_scales(shape)
        for flat, element, seen in element_classes(
            scales[first : first + count], shape, previous, np.float32(1)
        ):
            index[part][flat] = contexts.contexts(element, seen)
        first += count
    codes, offset = read_tables(
        data, offset, contexts, is_parametric=bool(head.how & _PARAMETRIC)
    )
    indices, offset = decode_words(data, offset, index, codes)
    if offset != len(data):
        raise CodecError("block has trailing bytes")
    for i, (own, shape, part) in enumerate(
        zip(signs, shapes, slices(specs), strict=True)
    ):
        if own.mode is SignMode.OWN:
            continue
        previous = None
        if past is not None and own.mode is SignMode.HISTORY:
            previous = past.previous(i).reshape(shape)
        shaped = indices[part].reshape(shape)
        for at, _ in tensor_blocks(shape):
            shaped[at] = own.flip(shaped[at], at, previous)
    return indices, _split(scales, shapes)


@frozen
class _Head:
    """What a block says before the scales."""

    contexts: ContextMap
    is_relative: bool
    how: int
    forms: Sequence[_Form]
    signs: Sequence[Signs]

    @property
    def needs_past(self) -> bool:
        """Whether it cannot be read without what was known before."""
        of_history = any(form.mode is SignMode.HISTORY for form in self.forms)
        return self.contexts.use_history or self.is_relative or of_history

    @classmethod
    def read(cls, data: bytes, shapes: Sequence[Shape3]) -> tuple[_Head, int]:
        """Read the head of a block of tensors; return it and where it ends."""
        if len(data) < _HEAD_BYTES:
            raise CodecError("block is truncated")
        flags, first, width = data[:_HEAD_BYTES]
        if flags & ~(_SHIFT | _HISTORY | _ALIKE | _RELATIVE | _BRIEF):
            raise CodecError("block has unknown flags")
        contexts = ContextMap(flags & _SHIFT, first, width, bool(flags & _HISTORY))
        contexts.check()
        offset = _HEAD_BYTES + (1 if flags & _ALIKE else len(shapes))
        if len(data) < offset:
            raise CodecError("block is truncated")
        forms = [_Form.of(byte) for byte in data[_HEAD_BYTES:offset]]
        if flags & _ALIKE:
            forms *= len(shapes)
        counts = [count_channels(f.mode, s) for f, s in zip(forms, shapes, strict=True)]
        end = offset + (sum(counts) + 7) // 8
        if len(data) < end:
            raise CodecError("block is truncated")
        packed = np.frombuffer(data, np.uint8, end - offset, offset)
        bits = np.unpackbits(packed, count=sum(counts)).astype(np.bool_)
        parts = np.split(bits, np.cumsum(counts)[:-1])
        signs = [Signs(f.mode, part) for f, part in zip(forms, parts, strict=True)]
        how = 0
        if flags & _BRIEF:
            if len(data) == end:
                raise CodecError("block is truncated")
            how, end = data[end], end + 1
            if not 0 < how <= _IN_GROUPS | _PARAMETRIC:
                raise CodecError("block has unknown flags")
        return cls(contexts, bool(flags & _RELATIVE), how, forms, signs), end
