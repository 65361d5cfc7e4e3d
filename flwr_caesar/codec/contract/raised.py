"""Updates that leave no negative element where the trained model has none."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .errors import CodecError
from .frame import RAISED, FrameReader, Section, add_section
from .layout import Array, Arrays, Layout

TAG = "RAIS"


def raise_to(update: Arrays, base: Arrays, names: Collection[str]) -> dict[str, Array]:
    """Return the tensors of an update that ``max(update, -base)`` changes.

    Parameters
    ----------
    update, base : mapping of str to ndarray
        The update, and the model to which it is to be added.
    names : collection of str
        The tensors to look at.

    Raises
    ------
    CodecError
        If the base lacks one of these, or has it in another shape or type.
    """
    raised = {}
    for name in names:
        delta, start = update[name], base.get(name)
        if start is None or start.shape != delta.shape or start.dtype.kind in "biu":
            raise CodecError(f"the model that is updated has another tensor {name!r}")
        least = -start.astype(delta.dtype)
        if bool((delta < least).any()):
            raised[name] = np.maximum(delta, least)
    return raised


def mark_raised(
    frame: bytes,
    layout: Layout,
    decoded: Arrays,
    base: Arrays,
    names: Collection[str],
) -> tuple[bytes, dict[str, Array]]:
    """Return a frame that says what its decoder is to raise, and what that becomes.

    Parameters
    ----------
    frame : bytes
        Of an update that decodes to `decoded`.
    layout : Layout
        Of the update.
    decoded, base : mapping of str to ndarray
        The update as it was coded, and the model to which it is to be added.
    names : collection of str
        Tensors without negative elements; see `raise_to`.

    Returns
    -------
    tuple of bytes and dict
        The frame as it is and nothing, where nothing needs to be raised.
    """
    raised = raise_to(decoded, base, names)
    if not raised:
        return frame, {}
    return add_section(frame, pack_raised(layout, raised), RAISED), raised


def pack_raised(layout: Layout, names: Collection[str]) -> Section:
    """Return the section that names tensors: a bit for each of the layout."""
    flags = [spec.name in names for spec in layout.tensors]
    return Section(TAG, np.packbits(flags).tobytes(), itemsize=1)


def unpack_raised(reader: FrameReader, layout: Layout) -> list[str]:
    """Read what `pack_raised` wrote.

    Raises
    ------
    CodecError
        If it names a tensor that is not floating point, or none of the layout.
    """
    tensors = layout.tensors
    data = reader.section(TAG, size=(len(tensors) + 7) // 8)
    flags = np.unpackbits(np.frombuffer(data, np.uint8))
    named = [spec for spec, flag in zip(tensors, flags, strict=False) if flag]
    if flags[len(tensors) :].any() or not all(spec.is_float for spec in named):
        raise CodecError("frame raises what is no tensor of floating-point numbers")
    return [spec.name for spec in named]
