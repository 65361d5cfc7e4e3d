"""The indices of `error_bounded` as sections: in contexts of the last round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..coding.class_counts import choose_contexts
from ..coding.compact_block import (
    COMPACT_TAG,
    decode_compact_block,
    encode_compact_block,
    in_steps,
)
from ..coding.contexts import (
    ContextMap,
    Scales,
    as_channels,
    check_scales,
    count_scales,
    element_classes,
    scale_kinds,
)
from ..coding.integers import compact, decode_integers, encode_integers, to_symbols
from ..coding.lattice_block import max_block_bytes
from ..coding.past import Past
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, TensorSpec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices

_SCALE_KINDS = 4


def pack_indices(
    indices: Array,
    lossy: Sequence[TensorSpec],
    steps: Vector,
    scales: Scales,
    state: CodecState | None,
    *,
    is_compact: bool,
) -> tuple[list[Section], Scales]:
    """Return the sections of indices, and the scales to remember.

    Parameters
    ----------
    indices : ndarray of int16 or int32, shape (n,)
        Of all tensors.
    lossy : sequence of TensorSpec
        The tensors.
    steps : ndarray of float32, shape (tensors,)
        Their steps.
    scales : ndarray of int16
        Of what was quantised; a compact block has its own, of the indices.
    state : CodecState, optional
        What both sides remember.
    is_compact : bool
        Whether to write a compact block.
    """
    if is_compact:
        past = _past(state, lossy, steps)
        block, parts = encode_compact_block(indices, lossy, past)
        return [Section(COMPACT_TAG, block)], np.concatenate(parts)
    return _pack_plain(indices, lossy, steps, scales, state), scales


def unpack_indices(
    reader: FrameReader,
    lossy: Sequence[TensorSpec],
    steps: Vector,
    state: CodecState | None,
    *,
    is_compact: bool,
) -> tuple[Array, Scales]:
    """Read what `pack_indices` wrote.

    Raises
    ------
    CodecError
        If the sections are malformed.
    """
    if not is_compact:
        scales = _read_scales(reader, lossy, state)
        return _read_plain(reader, lossy, steps, scales, state), scales
    block = reader.section(COMPACT_TAG, max_size=max_block_bytes(lossy))
    past = _past(state, lossy, steps)
    indices, parts = decode_compact_block(block, lossy, past)
    return compact(indices), np.concatenate(parts)


def max_packed(count: int) -> int:
    """Return the most bytes that `count` integers and their tables can take."""
    return 8 * count + (1 << 20)


def _past(
    state: CodecState | None, lossy: Sequence[TensorSpec], steps: Vector
) -> Past | None:
    """Return what both sides know of the indices from the last round."""
    if state is None:
        return None
    arrays = state.arrays
    counts = [count_scales(as_channels(spec.shape)) for spec in lossy]
    scales = np.split(arrays["scales"], np.cumsum(counts)[:-1])

    def previous(i: int) -> Vector:
        held = arrays[f"previous/{lossy[i].name}"]
        return in_steps(held.reshape(-1).copy(), steps[i])

    return Past(previous, scales)


def _pack_plain(
    indices: Array,
    lossy: Sequence[TensorSpec],
    steps: Vector,
    scales: Scales,
    state: CodecState | None,
) -> list[Section]:
    """Return the scales, as changes of the last round's, and the indices."""
    classes = np.empty(len(indices), np.uint8)
    histories = np.empty(len(indices), np.uint8) if state else None
    first = 0
    for spec, part, step in zip(lossy, slices(lossy), steps, strict=True):
        shape = as_channels(spec.shape)
        count = count_scales(shape)
        for flat, element, seen in element_classes(
            scales[first : first + count],
            shape,
            _previous(state, spec),
            step,
        ):
            classes[part][flat] = element
            if histories is not None and seen is not None:
                histories[part][flat] = seen
        first += count
    before = state.arrays["scales"] if state else np.zeros_like(scales)
    kinds = np.concatenate([scale_kinds(as_channels(s.shape)) for s in lossy])
    delta = scales.astype(np.int32) - before
    symbols = to_symbols(indices)
    contexts, counts = choose_contexts(symbols, classes, histories)
    index = contexts.contexts(classes, histories)
    del classes, histories
    packed = encode_integers(
        indices, index, contexts.size, symbols=symbols, counts=counts
    )
    return [
        Section("SCAL", encode_integers(delta, kinds, _SCALE_KINDS), itemsize=1),
        Section("IDX", contexts.to_bytes() + packed, itemsize=1),
    ]


def _read_scales(
    reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
) -> Scales:
    kinds = np.concatenate([scale_kinds(as_channels(s.shape)) for s in lossy])
    data = reader.section("SCAL", max_size=max_packed(len(kinds)))
    scales = decode_integers(data, kinds, _SCALE_KINDS).astype(np.int64)
    if state is not None:
        scales += state.arrays["scales"]
    return check_scales(scales)


def _read_plain(
    reader: FrameReader,
    lossy: Sequence[TensorSpec],
    steps: Vector,
    scales: Scales,
    state: CodecState | None,
) -> Array:
    total = sum(spec.size for spec in lossy)
    data = reader.section("IDX", max_size=max_packed(total))
    contexts, packed = ContextMap.from_bytes(data)
    if contexts.use_history and state is None:
        raise CodecError("indices use a history that the frame lacks")
    index = np.empty(total, np.uint8)
    start = first = 0
    for spec, step in zip(lossy, steps, strict=True):
        shape = as_channels(spec.shape)
        count = count_scales(shape)
        for flat, element, seen in element_classes(
            scales[first : first + count],
            shape,
            _previous(state, spec) if contexts.use_history else None,
            step,
        ):
            index[start : start + spec.size][flat] = contexts.contexts(element, seen)
        start += spec.size
        first += count
    return compact(decode_integers(packed, index, contexts.size))


def _previous(state: CodecState | None, spec: TensorSpec) -> Vector | None:
    """Return the last reconstruction of a tensor, if there is one."""
    if state is None:
        return None
    previous: Vector = state.arrays[f"previous/{spec.name}"]
    return previous.reshape(as_channels(spec.shape))
