"""`lattice_model`: a published model, whole or as the exact change of another.

A receiver needs the model as plain arrays only: ``new = old + d 2^unit`` in float64 is
exact, so all of them hold one model to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..coding.blocks import blocks
from ..coding.compact_block import (
    COMPACT_TAG,
    decode_compact_block,
    encode_compact_shorter,
)
from ..coding.halves import decode_halves, encode_halves, is_half, max_halves_bytes
from ..coding.integers import Integers
from ..coding.lattice_block import decode_block, max_block_bytes
from ..coding.small_block import (
    WORTH_LEAVING_OUT,
    decode_small_block,
    encode_shorter,
    max_small_block_bytes,
)
from ..contract.as_they_are import TAG, pack_as_they_are, unpack_as_they_are
from ..contract.base import DEFAULT_MAX_BYTES, TABLE_TAG, read_layout
from ..contract.digest import NamedModel, model_digest
from ..contract.errors import CodecError, StateMismatchError
from ..contract.exact import pack_exact, unpack_exact
from ..contract.frame import (
    FrameInfo,
    FrameReader,
    Section,
    inspect_frame,
    same_config,
    write_frame,
)
from ..contract.layout import Array, Arrays, Layout, TensorSpec, to_dtype
from ..contract.power import times_power
from ..contract.state import NO_DIGEST
from ..contract.vector import in_layout_order, slices
from .lattice_point import LatticePoint, difference
from .model_point import (
    DEFAULT_RULES,
    ID,
    LatticeRules,
    ModelPoint,
    publish_model,
)

__all__ = [
    "DEFAULT_RULES",
    "ID",
    "Grids",
    "LatticeRules",
    "ModelPoint",
    "decode_model",
    "encode_model",
    "publish_model",
]

Grids = LatticeRules
"""What `LatticeRules` was called."""

_HEAD = struct.Struct("<8s8s")
_MIN_UNIT, _MAX_UNIT = -149, 90
_SAME = -(1 << 15)


def encode_model(
    new: ModelPoint, base: ModelPoint | None = None, *, compact: bool = True
) -> bytes:
    """Encode a published model, whole or as the change of another.

    Parameters
    ----------
    new : ModelPoint
        The model.
    base : ModelPoint, optional
        One of the same layout that the receiver holds.
    compact : bool
        Whether the receiver reads compact blocks, as older releases do not.

    Returns
    -------
    bytes
        A frame of codec ``"lattice_model"``; see docs/wire-format.md.

    Raises
    ------
    CodecError
        If the two are of different layouts.
    """
    exact, lossy = new.rules.split(new.layout)
    values: Arrays = new.exact
    halves: list[TensorSpec] = []
    if base is not None:
        if (base.layout, base.rules) != (new.layout, new.rules):
            raise CodecError("the base has other tensors than the model")
        halves = [spec for spec in exact if is_half(spec)]
        exact = [spec for spec in exact if not is_half(spec)]
        values = _xor({spec.name: new.exact[spec.name] for spec in exact}, base.exact)
    sections = pack_exact(values, exact)
    held = base.digest if base is not None else NO_DIGEST
    sections.append(Section("HEAD", _HEAD.pack(held, new.digest)))
    if base is not None and halves:
        data = encode_halves(new.exact, base.exact, halves)
        sections.append(Section("HALF", data, itemsize=1))
    if lossy:
        sections += _pack_changes(new, base, lossy, compact=compact)
    if base is None:
        sections.insert(0, Section(TABLE_TAG, new.layout.to_bytes(), itemsize=1))
    is_compact = any(section.tag == COMPACT_TAG for section in sections)
    return write_frame(
        config=_config(new.rules.for_layout(new.layout), is_compact=is_compact),
        layout_digest=new.layout.digest,
        sections=sections,
    )


def decode_model(
    frame: bytes,
    base: Arrays | None = None,
    *,
    base_digest: bytes | None = None,
    expected: Layout | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    undo: bool = False,
) -> NamedModel:
    """Decode what `encode_model` wrote, to the bit.

    Parameters
    ----------
    frame : bytes
        A frame of codec ``"lattice_model"``.
    base : mapping of str to ndarray, optional
        The model that this side holds; not used by a frame of a whole model.
    base_digest : bytes, optional
        `model_digest` of `base` where it is known; computed if not given.
    expected : Layout, optional
        Tensors that a whole model must have. With `None` the frame's own table is
        believed, up to `max_bytes`.
    max_bytes : int
        Most bytes of arrays to accept from a frame's own table.
    undo : bool
        Whether `base` is the model that a change leads to, and the one that it starts
        from is wanted; see `is_undoable`.

    Returns
    -------
    NamedModel
        New arrays, in layout order, and their digest.

    Raises
    ------
    StateMismatchError
        If the frame is the change of another model than `base`.
    CodecError
        If it is malformed, or leads to another model than it names.
    """
    reader = FrameReader(frame)
    rules, is_compact = _parameters(reader.info.config)
    _require_no_state(reader.info)
    held, digest = _HEAD.unpack(reader.section("HEAD", size=_HEAD.size))
    if undo:
        if held == NO_DIGEST or TAG in reader:
            raise CodecError("frame does not say what its model was changed from")
        held, digest = digest, held
    if held == NO_DIGEST:
        base = None
        layout = read_layout(reader, expected, max_bytes)
    else:
        base = _require_base(base, base_digest, held)
        layout = Layout.of(base)
        if layout.digest != reader.info.layout_digest:
            raise CodecError("frame is of another layout than the model it changes")
    exact, lossy = rules.split(layout)
    halves = [spec for spec in exact if "HALF" in reader and is_half(spec)]
    arrays = unpack_exact(reader, [spec for spec in exact if spec not in halves])
    if base is not None:
        arrays = _xor(arrays, base)
    if halves:
        if base is None:
            raise CodecError("a whole model changes no 16-bit tensors")
        data = reader.section("HALF", max_size=max_halves_bytes(halves))
        arrays |= decode_halves(data, base, halves, undo=undo)
    if lossy:
        arrays |= _unpack_changes(reader, base, lossy, is_compact=is_compact, undo=undo)
    arrays = in_layout_order(layout, arrays)
    if model_digest(arrays) != digest:
        raise CodecError("lattice model differs from its digest")
    return NamedModel(arrays, digest)


def is_undoable(frame: bytes) -> bool:
    """Whether a change tells the model that it starts from, of the one it leads to.

    Where it has tensors as they are, only the new ones are in it.
    """
    return TAG not in inspect_frame(frame).sections


def leads_to(frame: bytes) -> bytes:
    """Return the digest of the model that a frame leads to.

    Raises
    ------
    CodecError
        If it is no frame of a published model.
    """
    head = FrameReader(frame).section("HEAD", size=_HEAD.size)
    _, digest = _HEAD.unpack(head)
    return bytes(digest)


def _pack_changes(
    new: ModelPoint,
    base: ModelPoint | None,
    lossy: Sequence[TensorSpec],
    *,
    compact: bool,
) -> list[Section]:
    """Return the sections of the tensors on the lattice."""
    old = base.points if base is not None else _zeros(new)
    changes: list[Integers | None] = []
    units = []
    as_they_are: dict[str, Array] = {}
    for spec, a, b in zip(lossy, new.points, old, strict=True):
        now = new.special.get(spec.name)
        was = base.special.get(spec.name) if base is not None else None
        change, unit = None, _SAME
        if now is not None:
            if was is None or now.tobytes() != was.tobytes():
                as_they_are[spec.name] = now
        elif was is not None:
            as_they_are[spec.name] = new.tensor(spec, a)
        else:
            try:
                change, unit = difference(a, b)
            except CodecError:  # further apart than 32 bits reach
                as_they_are[spec.name] = new.tensor(spec, a)
        changes.append(change)
        units.append(unit)
    still = [i for i, c in enumerate(changes) if c is not None and not c.any()]
    if _SAME in units or sum(lossy[i].size for i in still) >= WORTH_LEAVING_OUT:
        for i in still:
            changes[i], units[i] = None, _SAME
    kept = [spec for spec, c in zip(lossy, changes, strict=True) if c is not None]
    together = np.empty(sum(spec.size for spec in kept), np.int32)
    parts = iter(slices(kept))
    for i, change in enumerate(changes):
        if change is not None:
            together[next(parts)] = change
        changes[i] = change = None  # or all would be in memory twice
    if compact:
        is_small, block, _ = encode_compact_shorter(together, kept)
    else:
        is_small, block = encode_shorter(together, kept)
    tag = "RICE" if is_small else COMPACT_TAG if compact else "LATT"
    return [
        *pack_as_they_are(as_they_are, lossy, list(as_they_are)),
        Section("UNIT", np.array(units, "<i2").tobytes(), itemsize=2),
        Section(tag, block, itemsize=1),
    ]


def _unpack_changes(
    reader: FrameReader,
    base: Arrays | None,
    lossy: Sequence[TensorSpec],
    *,
    is_compact: bool,
    undo: bool,
) -> dict[str, Array]:
    units = np.frombuffer(reader.section("UNIT", size=2 * len(lossy)), "<i2").tolist()
    if not all(unit == _SAME or _MIN_UNIT <= unit <= _MAX_UNIT for unit in units):
        raise CodecError("lattice model has a malformed unit")
    kept = [s for s, unit in zip(lossy, units, strict=True) if unit != _SAME]
    if "RICE" in reader:
        data = reader.section("RICE", max_size=max_small_block_bytes(kept))
        indices = decode_small_block(data, kept)
    elif is_compact:
        data = reader.section(COMPACT_TAG, max_size=max_block_bytes(kept))
        indices, _ = decode_compact_block(data, kept)
    else:
        data = reader.section("LATT", max_size=max_block_bytes(kept))
        indices = decode_block(data, kept)
    arrays = dict(unpack_as_they_are(reader, lossy))
    present = iter(slices(kept))
    for spec, unit in zip(lossy, units, strict=True):
        dtype = to_dtype(spec.dtype)
        part = next(present) if unit != _SAME else None
        if spec.name in arrays:
            continue
        if part is None:
            old = np.zeros(spec.shape, dtype) if base is None else base[spec.name]
            arrays[spec.name] = np.array(old, dtype)
            continue
        before = base[spec.name] if base is not None else None
        moved = _moved(indices[part], unit, before, dtype, undo=undo)
        arrays[spec.name] = moved.reshape(spec.shape)
    return arrays


def _moved(
    change: Integers,
    unit: int,
    old: Array | None,
    dtype: np.dtype[Any],
    *,
    undo: bool,
) -> Array:
    """Return a tensor, flat, after a change; in the change's place if it fits there."""
    fits = dtype.itemsize == change.itemsize
    values = change.view(dtype) if fits else np.empty(len(change), dtype)
    before = old.reshape(-1) if old is not None else None
    for part in blocks(len(change)):
        piece = change[part].astype(np.float64)
        times_power(piece, unit, out=piece)
        if undo and before is not None:
            np.subtract(before[part], piece, out=piece)
        elif before is not None:
            piece += before[part]
        with np.errstate(over="ignore"):
            values[part] = piece.astype(dtype, copy=False)
    return values


def _config(rules: LatticeRules, *, is_compact: bool) -> dict[str, str | int]:
    config: dict[str, str | int] = {"id": ID, "exact_below": rules.exact_below}
    if rules.halves:  # later than the first frames
        config["halves"] = 1
    if is_compact:
        config["compact"] = True
    return config


def _parameters(config: Mapping[str, object]) -> tuple[LatticeRules, bool]:
    """Return the rules of a frame, and whether its block is compact."""
    value = config.get("exact_below")
    exact_below = -1
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        exact_below = int(value)
    rules = LatticeRules(max(exact_below, 0), halves="halves" in config)
    is_compact = config.get("compact") is True
    known = _config(rules, is_compact=is_compact)
    if exact_below < 0 or not same_config(config, known):
        raise CodecError(f"frame of codec {config!s:.200}, expected {ID}")
    return rules, is_compact


def _require_no_state(info: FrameInfo) -> None:
    if info.state_version or info.state_digest != NO_DIGEST:
        raise StateMismatchError(
            f"a published model continues from no codec state, and this one from "
            f"{info.state_version} ({info.state_digest.hex()})"
        )
    if info.flags:
        raise CodecError(f"a published model has no flags, and this one {info.flags}")


def _require_base(base: Arrays | None, known: bytes | None, digest: bytes) -> Arrays:
    if base is None or (known or model_digest(base)) != digest:
        raise StateMismatchError(
            f"frame changes model {digest.hex()}, which this side does not hold"
        )
    return base


def _zeros(point: ModelPoint) -> tuple[LatticePoint, ...]:
    return tuple(
        LatticePoint(np.broadcast_to(np.int16(0), len(own.indices)), own.exponent)
        for own in point.points
    )


def _xor(arrays: Arrays, others: Arrays) -> dict[str, Array]:
    """Combine the bytes of tensors of equal names, dtypes and shapes."""
    found = {}
    for name, array in arrays.items():
        little = to_dtype(array.dtype.name)
        a, b = (
            np.ascontiguousarray(x, little).reshape(-1).view(np.uint8)
            for x in (array, others[name])
        )
        found[name] = (a ^ b).view(little).reshape(array.shape)
    return found
