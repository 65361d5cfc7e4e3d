"""Quantised tensors as sections of a frame of `lattice`, and back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np

from ..coding.compact_block import (
    COMPACT_TAG,
    decode_compact_block,
    encode_compact_shorter,
)
from ..coding.contexts import Scales, as_channels, count_scales
from ..coding.integers import Integers
from ..coding.lattice_block import decode_block, max_block_bytes
from ..coding.past import Past
from ..coding.small_block import (
    WORTH_LEAVING_OUT,
    decode_small_block,
    encode_shorter,
    max_small_block_bytes,
)
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import TensorSpec
from ..contract.vector import slices
from .lattice_steps import MAX_EXPONENT, MIN_EXPONENT, MIN_OFFSET, Quantised
from .step_search import Step

_HEAD = struct.Struct("<hB")
_ABSENT = MIN_OFFSET - 1

PastOf = Callable[[Step, Sequence[int]], Past | None]
"""What both sides know, in steps of the frame: given its step, and those of tensors."""


def pack_quantised(
    found: Quantised,
    lossy: Sequence[TensorSpec],
    past: Past | None = None,
    *,
    compact: bool = False,
) -> tuple[list[Section], list[Scales]]:
    """Return the sections of integers, and of the steps where these differ.

    Parameters
    ----------
    found : Quantised
        The integers.
    lossy : sequence of TensorSpec
        Their tensors.
    past : Past, optional
        What both sides know of them; only with `compact`.
    compact : bool
        Whether the reader knows compact blocks.

    Returns
    -------
    tuple of list of Section, and list of ndarray
        The sections, and with `compact` the scales of each tensor, for the next `past`.
    """
    parts = slices(lossy)
    pieces = [found.indices[part] for part in parts]
    zero = [not piece.any() for piece in pieces]
    absent = sum(len(p) for p, z in zip(pieces, zero, strict=True) if z)
    indices, kept, steps = found.indices, list(range(len(lossy))), []
    if any(found.offsets) or absent >= WORTH_LEAVING_OUT:
        own = np.where(zero, _ABSENT, found.offsets).astype(np.int8)
        steps = [Section("STEP", own.tobytes(), itemsize=1)]
        kept = [i for i in kept if not zero[i]]
        if any(zero):
            present = [pieces[i] for i in kept]
            indices = np.concatenate([np.empty(0, np.int32), *present])
    specs = [lossy[i] for i in kept]
    scales = _scales_before(lossy, past)
    if compact:
        is_small, block, told = encode_compact_shorter(
            indices, specs, past.only(kept) if past else None
        )
        for i, own_scales in zip(kept, told, strict=False):
            scales[i] = own_scales
        tag = "RICE" if is_small else COMPACT_TAG
    else:
        is_small, block = encode_shorter(indices, specs)
        tag = "RICE" if is_small else "LATS" if steps else "LATT"
    head = _HEAD.pack(found.step.exponent, found.step.multiple)
    return [*steps, Section(tag, head + block, itemsize=1)], scales


def unpack_quantised(
    reader: FrameReader,
    lossy: Sequence[TensorSpec],
    past_of: PastOf = lambda step, offsets: None,
    *,
    compact: bool = False,
) -> tuple[Quantised, list[Scales], list[int]]:
    """Read what `pack_quantised` wrote.

    Returns
    -------
    tuple of Quantised, list of ndarray, and list of int
        The integers are those of the tensors that the list names; all others are 0
        (`with_zeros`). Steps and scales are of all.

    Raises
    ------
    CodecError
        If the sections are malformed.
    """
    own = [0] * len(lossy)
    tag = COMPACT_TAG if compact else "LATT"
    if "STEP" in reader:
        data = reader.section("STEP", size=len(lossy))
        own = np.frombuffer(data, np.int8).tolist()
        tag = COMPACT_TAG if compact else "LATS"
    if "RICE" in reader:
        tag = "RICE"
    kept = [i for i, offset in enumerate(own) if offset != _ABSENT]
    specs = [lossy[i] for i in kept]
    most = max_small_block_bytes(specs) if tag == "RICE" else max_block_bytes(specs)
    data = reader.section(tag, max_size=_HEAD.size + most)
    if len(data) < _HEAD.size:
        raise CodecError("lattice is truncated")
    exponent, multiple = _HEAD.unpack_from(data)
    if not (MIN_EXPONENT <= exponent <= MAX_EXPONENT and 4 <= multiple <= 7):
        raise CodecError("lattice has a malformed step")
    step = Step(multiple, exponent)
    offsets = tuple(0 if offset == _ABSENT else offset for offset in own)
    past = past_of(step, offsets)
    scales = _scales_before(lossy, past)
    block = data[_HEAD.size :]
    if tag == "RICE":
        indices = decode_small_block(block, specs)
    elif compact:
        only = past.only(kept) if past else None
        indices, told = decode_compact_block(block, specs, only)
        for i, own_scales in zip(kept, told, strict=False):
            scales[i] = own_scales
    else:
        indices = decode_block(block, specs)
    return Quantised(step, offsets, indices), scales, kept


def _scales_before(lossy: Sequence[TensorSpec], past: Past | None) -> list[Scales]:
    if past is not None:
        return list(past.scales)
    counts = [count_scales(as_channels(spec.shape)) for spec in lossy]
    return [np.zeros(count, np.int16) for count in counts]


def with_zeros(
    indices: Integers, lossy: Sequence[TensorSpec], kept: Sequence[int]
) -> Integers:
    """Return the integers of all tensors, of those of some."""
    if len(kept) == len(lossy):
        return indices
    present = dict(zip(kept, slices([lossy[i] for i in kept]), strict=True))
    pieces = [
        indices[present[i]] if i in present else np.zeros(spec.size, np.int32)
        for i, spec in enumerate(lossy)
    ]
    return np.concatenate(pieces)
