"""Integers of several tensors with little beside them: the compact form of a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.frame import stored_size
from ..contract.layout import Array, TensorSpec
from ..contract.vector import Vector
from .block_shape import BlockShape
from .block_tensors import (
    block_classes,
    block_contexts,
    block_sums,
    block_symbols,
    flip_block,
)
from .blocks import Shape3
from .class_counts import ClassCounts
from .compact_run import decode_words, encode_words
from .compact_scales import Levels, read_levels
from .compact_tables import CompactTables, read_tables
from .contexts import (
    ContextMap,
    Scales,
    check_scales,
    scale_axes,
)
from .integers import Integers
from .past import Past
from .signs import SignMode, Signs, count_channels
from .slices import Slices
from .small_block import FEW, encode_small_block

COMPACT_TAG = "CMPT"
"""Of the section that holds such a block."""

_SHIFT, _HISTORY, _ALIKE, _RELATIVE, _BRIEF = 0x07, 0x08, 0x10, 0x20, 0x40
_IN_GROUPS, _PARAMETRIC = 1, 2
_UNITS = 1, 2, 4, 8
_HEAD_BYTES = 3
_WORTH_TABLES = 96


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
    block = BlockShape.of(specs)
    tensors = _describe(indices, block, past)
    kinds = block.kinds
    scales = np.concatenate([tensor.scales for tensor in tensors])
    units = np.concatenate([t.form.scale_units(t.shape) for t in tensors])
    sliced = Slices.join([tensor.slices for tensor in tensors])
    before = past.scales if past else None
    levels, scales = Levels.choose(scales, units, before, kinds, sliced)
    signs = [tensor.signs for tensor in tensors]
    symbols, far = block_symbols(indices, block, signs, past)
    classes, histories = block_classes(scales, block, past)
    tables = CompactTables.choose(ClassCounts(symbols, classes, histories))
    index = tables.contexts.contexts(classes, histories)
    del classes, histories
    in_groups, told = levels.to_bytes(kinds)
    how = _IN_GROUPS * in_groups | _PARAMETRIC * tables.is_parametric
    flags = _RELATIVE * levels.is_relative | (_BRIEF if how else 0)
    written = [
        _pack_head(tables.contexts, tensors, flags),
        bytes([how] if how else []),
        told,
        tables.told,
        encode_words(symbols, far, index, tables.codes, tables.bits),
    ]
    return b"".join(written), block.split(scales)


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


def _describe(indices: Integers, block: BlockShape, past: Past | None) -> list[_Tensor]:
    found = []
    for i, (sums, signs) in enumerate(block_sums(indices, block, past)):
        shape = block.shapes[i]
        best = signs.best(with_history=past is not None)
        scales, own = sums.coarse_scales(signs.active)
        units = [1, 1, 1]
        for axis, unit in zip(scale_axes(shape), own, strict=True):
            units[axis] = unit
        form = _Form(best.mode, (units[0], units[1], units[2]))
        found.append(_Tensor(shape, form, best, scales, sums.slices()))
    return found


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
    block = BlockShape.of(specs)
    head, offset = _Head.read(data, block.shapes)
    contexts = head.contexts
    if past is None and head.needs_past:
        raise CodecError("block uses a history that it does not have")
    levels, offset = read_levels(
        data, offset, block.kinds, in_groups=bool(head.how & _IN_GROUPS)
    )
    units = [f.scale_units(s) for f, s in zip(head.forms, block.shapes, strict=True)]
    wide = levels.astype(np.int64) * np.concatenate(units)
    if past is not None and head.is_relative:
        wide += np.concatenate(past.scales)
    scales = check_scales(wide)
    index = block_contexts(scales, block, contexts, past)
    codes, offset = read_tables(
        data, offset, contexts, is_parametric=bool(head.how & _PARAMETRIC)
    )
    indices, offset = decode_words(data, offset, index, codes)
    if offset != len(data):
        raise CodecError("block has trailing bytes")
    flip_block(indices, block, head.signs, past)
    return indices, block.split(scales)


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
