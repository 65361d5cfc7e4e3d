"""`lattice_model`: a published model, whole or as the exact change of another.

Each floating-point tensor is a lattice point of its own (`lattice_point`), with an
exponent that follows the model's: a finer one for small tensors, and never so fine that
float32 could not hold the values. A receiver needs the model as plain arrays only:
``new = old + d 2^unit`` in float64 is exact, so all of them hold one model to the bit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .base import DEFAULT_MAX_BYTES, TABLE_TAG, read_layout, require_finite
from .digest import model_digest
from .errors import CodecError, StateMismatchError
from .exact import pack_exact, require_exact_below, unpack_exact
from .frame import FrameReader, Section, same_config, write_frame
from .lattice import FINE_BITS
from .lattice_block import decode_block, encode_block, max_block_bytes
from .lattice_point import MIN_EXPONENT, LatticePoint, difference, publish
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype
from .state import NO_DIGEST
from .vector import in_layout_order, slices

ID = "lattice_model"
_DTYPES = frozenset({"float32", "float64"})
_HEAD = struct.Struct("<8s8s")
_MIN_UNIT, _MAX_UNIT = -149, 90
_EXACT_BITS = 24
_LARGEST_BITS = 22
_MOVE_BITS = 29
_FINE_RANGE_BITS = 10
_MOST_FINE_BITS = 16


@dataclass(frozen=True)
class Grids:
    """Which tensors of a model are on the lattice, and which of them on a finer grid.

    Tensors of ``float32`` and ``float64`` are on it; all others, 16-bit ones included,
    are sent exactly.

    Parameters
    ----------
    exact_below : int
        Tensors of fewer elements are sent exactly, too.
    fine_below : int
        Tensors of fewer elements, such as biases and norms, get a step at least 64
        times finer, and at least 1,024 times finer than their largest element (but at
        most 65,536 times finer than the others' step).
    """

    exact_below: int = 0
    fine_below: int = 1024

    def __post_init__(self) -> None:
        require_exact_below(ID, self.exact_below)

    def split(self, layout: Layout) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Return the exact tensors and those on the lattice, each in layout order."""
        exact: list[TensorSpec] = []
        lossy: list[TensorSpec] = []
        for spec in layout.tensors:
            on_lattice = spec.dtype in _DTYPES and spec.size >= max(self.exact_below, 1)
            (lossy if on_lattice else exact).append(spec)
        return exact, lossy

    def exponent(self, spec: TensorSpec, largest: float, exponent: int) -> int:
        """Return a tensor's own exponent.

        Parameters
        ----------
        spec : TensorSpec
            The tensor.
        largest : float
            Its largest magnitude.
        exponent : int
            That of the model's step.
        """
        top = math.frexp(largest)[1]
        if spec.size < self.fine_below:
            finest = exponent - _MOST_FINE_BITS
            own = max(top - _FINE_RANGE_BITS, finest)
            exponent = min(exponent - FINE_BITS, own)
        return max(exponent, top - _LARGEST_BITS, MIN_EXPONENT)


DEFAULT_GRIDS = Grids()


@dataclass(frozen=True)
class ModelPoint:
    """A model as it was published.

    Parameters
    ----------
    layout : Layout
        All tensors.
    points : tuple of LatticePoint
        Those on the lattice, in layout order, indices of at most 2^24.
    exact : mapping of str to ndarray
        The others.
    grids : Grids
        Which are which.
    """

    layout: Layout
    points: tuple[LatticePoint, ...]
    exact: Arrays
    grids: Grids = field(default=DEFAULT_GRIDS)

    @cached_property
    def digest(self) -> bytes:
        """`model_digest` of the arrays."""
        return model_digest(self.arrays())

    @property
    def exponents(self) -> tuple[int, ...]:
        """Exponent of each tensor on the lattice."""
        return tuple(point.exponent for point in self.points)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the point takes."""
        exact = sum(array.nbytes for array in self.exact.values())
        return exact + sum(point.indices.nbytes for point in self.points)

    def arrays(self) -> dict[str, Array]:
        """Return the model as new arrays, in layout order."""
        arrays = {name: array.copy() for name, array in self.exact.items()}
        _, lossy = self.grids.split(self.layout)
        for spec, point in zip(lossy, self.points, strict=True):
            values = point.values().reshape(spec.shape)
            arrays[spec.name] = values.astype(to_dtype(spec.dtype), copy=False)
        return in_layout_order(self.layout, arrays)

    @classmethod
    def of(
        cls, arrays: Arrays, exponents: Sequence[int], grids: Grids = DEFAULT_GRIDS
    ) -> ModelPoint:
        """Return the point that has these arrays, to the bit.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What `arrays` returned.
        exponents : sequence of int
            What `exponents` was.
        grids : Grids
            What `grids` was.

        Raises
        ------
        CodecError
            If the arrays are not on these grids.
        """
        layout = Layout.of(arrays)
        exact, lossy = grids.split(layout)
        if len(exponents) != len(lossy):
            raise CodecError(f"{len(exponents)} exponents for {len(lossy)} tensors")
        points = []
        for spec, exponent in zip(lossy, exponents, strict=True):
            flat = arrays[spec.name].reshape(-1).astype(np.float64)
            scaled = np.ldexp(flat, -exponent)
            limit = float(np.abs(scaled).max())
            if not limit <= 1 << _EXACT_BITS or (scaled != np.rint(scaled)).any():
                raise CodecError(f"tensor {spec.name!r} is not on its grid")
            points.append(LatticePoint(scaled.astype(np.int32), exponent))
        copies = {spec.name: np.array(arrays[spec.name]) for spec in exact}
        return cls(layout, tuple(points), copies, grids)


def publish_model(
    model: Arrays,
    before: ModelPoint | None,
    exponent: int,
    grids: Grids = DEFAULT_GRIDS,
) -> ModelPoint:
    """Return the next published point of a model.

    A tensor without negative elements is published without: a running variance stays
    one.

    Parameters
    ----------
    model : mapping of str to ndarray
        The model to approach; no array is kept or changed.
    before : ModelPoint or None
        Published last; `None` for the first.
    exponent : int
        The step is ``2^exponent``, but for what `Grids` says.
    grids : Grids
        As for `before`.

    Raises
    ------
    CodecError
        If an element is NaN, infinite or beyond 2^82, or the model has other tensors
        than `before`.
    """
    model = {name: np.asarray(array) for name, array in model.items()}
    layout = Layout.of(model)
    require_finite(model)
    if before is not None and (before.layout, before.grids) != (layout, grids):
        raise CodecError("the model has other tensors than the one published before")
    exact, lossy = grids.split(layout)
    points = []
    for i, spec in enumerate(lossy):
        w = model[spec.name].reshape(-1)
        own = grids.exponent(spec, float(np.abs(w).max()), exponent)
        points.append(_publish_tensor(w, before.points[i] if before else None, own))
    copies = {s.name: np.array(model[s.name], to_dtype(s.dtype)) for s in exact}
    return ModelPoint(layout, tuple(points), copies, grids)


def _publish_tensor(
    w: Array, before: LatticePoint | None, exponent: int
) -> LatticePoint:
    if before is not None and not _continues(w, before, exponent):
        before = None
    point = publish(w, before, exponent)
    if int(point.indices.min()) < 0 <= float(w.min()):
        return publish(w, None, exponent)
    return point


def _continues(w: Array, before: LatticePoint, exponent: int) -> bool:
    """Whether float32 and 32-bit integers hold the next point on the grid so far."""
    grid = min(exponent, before.exponent)
    top = math.frexp(float(np.abs(w).max()))[1]
    last = before.exponent + int(np.abs(before.indices).max()).bit_length()
    return (
        exponent - grid <= _LARGEST_BITS
        and top - grid <= _EXACT_BITS - 1
        and max(top, last) - exponent <= _MOVE_BITS
    )


def encode_model(new: ModelPoint, base: ModelPoint | None = None) -> bytes:
    """Encode a published model, whole or as the change of another.

    Parameters
    ----------
    new : ModelPoint
        The model.
    base : ModelPoint, optional
        One of the same layout that the receiver holds.

    Returns
    -------
    bytes
        A frame of codec ``"lattice_model"``; see docs/wire-format.md.

    Raises
    ------
    CodecError
        If the two are of different layouts, or so far apart that the difference does
        not fit in 32 bits: send the whole model.
    """
    exact, lossy = new.grids.split(new.layout)
    values, old = new.exact, _zeros(new)
    if base is not None:
        if (base.layout, base.grids) != (new.layout, new.grids):
            raise CodecError("the base has other tensors than the model")
        values, old = _xor(new.exact, base.exact), base.points
    sections = pack_exact(values, exact)
    held = base.digest if base is not None else NO_DIGEST
    sections.append(Section("HEAD", _HEAD.pack(held, new.digest)))
    if lossy:
        changes = [difference(a, b) for a, b in zip(new.points, old, strict=True)]
        indices = np.concatenate([indices for indices, _ in changes])
        units = np.array([unit for _, unit in changes], "<i2")
        sections += [
            Section("UNIT", units.tobytes(), itemsize=2),
            Section("LATT", encode_block(indices, lossy), itemsize=1),
        ]
    if base is None:
        sections.insert(0, Section(TABLE_TAG, new.layout.to_bytes(), itemsize=1))
    return write_frame(
        config=_config(new.grids.exact_below),
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
) -> dict[str, Array]:
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

    Returns
    -------
    dict of str to ndarray
        New arrays, in layout order.

    Raises
    ------
    StateMismatchError
        If the frame is the change of another model than `base`.
    CodecError
        If it is malformed, or leads to another model than it names.
    """
    reader = FrameReader(frame)
    grids = Grids(_exact_below(reader.info.config))
    held, digest = _HEAD.unpack(reader.section("HEAD", size=_HEAD.size))
    if held == NO_DIGEST:
        base = None
        layout = read_layout(reader, expected, max_bytes)
    else:
        base = _require_base(base, base_digest, held)
        layout = Layout.of(base)
        if layout.digest != reader.info.layout_digest:
            raise CodecError("frame is of another layout than the model it changes")
    exact, lossy = grids.split(layout)
    arrays = unpack_exact(reader, exact)
    if base is not None:
        arrays = _xor(arrays, base)
    if lossy:
        units = np.frombuffer(reader.section("UNIT", size=2 * len(lossy)), "<i2")
        if not (_MIN_UNIT <= int(units.min()) <= int(units.max()) <= _MAX_UNIT):
            raise CodecError("lattice model has a malformed unit")
        packed = reader.section("LATT", max_size=max_block_bytes(lossy))
        indices = decode_block(packed, lossy)
        parts = zip(lossy, slices(lossy), units.tolist(), strict=True)
        for spec, part, unit in parts:
            values = np.ldexp(indices[part].astype(np.float64), unit)
            values = values.reshape(spec.shape)
            if base is not None:
                values += base[spec.name]
            with np.errstate(over="ignore"):
                arrays[spec.name] = values.astype(to_dtype(spec.dtype), copy=False)
    arrays = in_layout_order(layout, arrays)
    require_finite(arrays)
    if model_digest(arrays) != digest:
        raise CodecError("lattice model differs from its digest")
    return arrays


def _config(exact_below: int) -> dict[str, str | int]:
    return {"id": ID, "exact_below": exact_below}


def _exact_below(config: Mapping[str, object]) -> int:
    value = config.get("exact_below")
    if not isinstance(value, int) or not same_config(config, _config(value)):
        raise CodecError(f"frame of codec {config!s:.200}, expected {ID}")
    return value


def _require_base(base: Arrays | None, known: bytes | None, digest: bytes) -> Arrays:
    if base is None or (known or model_digest(base)) != digest:
        raise StateMismatchError(
            f"frame changes model {digest.hex()}, which this side does not hold"
        )
    return base


def _zeros(point: ModelPoint) -> tuple[LatticePoint, ...]:
    return tuple(
        LatticePoint(np.broadcast_to(np.int32(0), len(own.indices)), own.exponent)
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
