"""Bit-exact sections: tensors whose bytes are sent as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import CodecError
from .frame import FrameReader, Section
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype

_ITEMSIZES = (1, 2, 4, 8)


def split_exact(
    layout: Layout, exact_below: int, *, exclude_1d: bool = False
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Split a layout into tensors sent exactly and tensors open to loss.

    Parameters
    ----------
    layout : Layout
        The tensors.
    exact_below : int
        Floating-point tensors with fewer elements are exact, as are all others that
        are not floating point: biases and normalisation statistics cost little and
        do not survive quantisation.
    exclude_1d : bool
        Tensors of fewer than two axes are exact, too.

    Returns
    -------
    tuple of list of TensorSpec
        Exact and lossy tensors, each in layout order.
    """
    exact: list[TensorSpec] = []
    lossy: list[TensorSpec] = []
    for spec in layout.tensors:
        is_lossy = spec.is_float and spec.size >= max(exact_below, 1)
        is_lossy = is_lossy and not (exclude_1d and len(spec.shape) < 2)
        (lossy if is_lossy else exact).append(spec)
    return exact, lossy


def require_exact_below(codec_id: str, exact_below: int) -> None:
    """Check a codec's `exact_below`.

    Raises
    ------
    CodecError
        If it is not an integer of at least 0.
    """
    if not (isinstance(exact_below, int) and exact_below >= 0):
        raise CodecError(
            f"{codec_id}: exact_below must be an integer >= 0, not {exact_below}"
        )


def pack_exact(arrays: Arrays, specs: Sequence[TensorSpec]) -> list[Section]:
    """Concatenate tensors into one section per element size (``X1`` … ``X8``)."""
    sections = []
    for itemsize in _ITEMSIZES:
        data = b"".join(
            np.ascontiguousarray(arrays[s.name], to_dtype(s.dtype))
            .reshape(-1)
            .view(np.uint8)
            .data
            for s in specs
            if s.itemsize == itemsize
        )
        if data:
            sections.append(Section(f"X{itemsize}", data, itemsize))
    return sections


def unpack_exact(reader: FrameReader, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read what `pack_exact` wrote, as writable arrays.

    Raises
    ------
    CodecError
        If a section is missing or of another size, or a bool is neither 0 nor 1.
    """
    arrays: dict[str, Array] = {}
    for itemsize in _ITEMSIZES:
        group = [s for s in specs if s.itemsize == itemsize]
        total = sum(s.nbytes for s in group)
        if not total:
            buffer = np.empty(0, np.uint8)
        else:
            buffer = reader.elements(f"X{itemsize}", size=total)
        offset = 0
        for spec in group:
            raw = buffer[offset : offset + spec.nbytes]
            if spec.dtype == "bool" and raw.max(initial=0) > 1:
                raise CodecError(f"tensor {spec.name!r} holds bytes that are not bool")
            arrays[spec.name] = raw.view(to_dtype(spec.dtype)).reshape(spec.shape)
            offset += spec.nbytes
    return arrays
