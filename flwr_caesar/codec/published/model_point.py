"""A model on a power-of-two lattice for each tensor, as a server publishes it.

Each floating-point tensor is a lattice point of its own (`lattice_point`), with an
exponent of its own, and never so fine that float32 could not hold the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import blocks
from ..coding.halves import is_half
from ..coding.integers import compact
from ..contract.digest import model_digest
from ..contract.errors import CodecError
from ..contract.exact import require_exact_below
from ..contract.layout import Array, Arrays, Layout, TensorSpec, to_dtype
from ..contract.power import times_power
from ..contract.vector import LARGEST_16_BIT, require_elements
from ..quantisers.tensor_steps import FINE_BITS
from .lattice_point import MAX_EXPONENT, MIN_EXPONENT, LatticePoint, publish

ID = "lattice_model"
_DTYPES = frozenset({"float32", "float64"})
_EXACT_BITS = 24
_MAGNITUDE, _NEGATIVE_ZERO = 0x7FFF, 0x8000  # of 16 bits
LARGEST_BITS = 22
_MOVE_BITS = 29
FINE_RANGE_BITS = 10
MOST_FINE_BITS = 16
_SMALLEST, _LARGEST = 2.0 ** (MIN_EXPONENT + LARGEST_BITS), 2.0**82


@frozen
class LatticeRules:
    """Which tensors of a model are on the lattice, and which of them on a finer one.

    Tensors of ``float32`` and ``float64`` are on it; all others are sent exactly.

    Parameters
    ----------
    exact_below : int
        Tensors of fewer elements are sent exactly, too.
    fine_below : int
        Tensors of fewer elements, such as biases and norms, get a step at least 64
        times finer, and at least 1,024 times finer than their largest element (but at
        most 65,536 times finer than the others' step).
    halves : bool
        Tensors of ``float16`` and ``bfloat16`` are on it, too: each element is the
        multiple of the step that their type holds and that is nearest.
    """

    exact_below: int = 0
    fine_below: int = 1024
    halves: bool = False

    def __post_init__(self) -> None:
        require_exact_below(ID, self.exact_below)

    def split(self, layout: Layout) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Return the exact tensors and those on the lattice, each in layout order."""
        exact: list[TensorSpec] = []
        lossy: list[TensorSpec] = []
        for spec in layout.tensors:
            on_lattice = spec.dtype in _DTYPES or (self.halves and is_half(spec))
            on_lattice = on_lattice and spec.size >= max(self.exact_below, 1)
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
            finest = exponent - MOST_FINE_BITS
            own = max(top - FINE_RANGE_BITS, finest)
            exponent = min(exponent - FINE_BITS, own)
        return max(exponent, top - LARGEST_BITS, MIN_EXPONENT)

    def for_layout(self, layout: Layout) -> LatticeRules:
        """Return the same rules without `halves` where it says nothing of a layout."""
        lossy = replace(self, halves=True).split(layout)[1]
        return replace(self, halves=self.halves and any(map(is_half, lossy)))


DEFAULT_RULES = LatticeRules()


@frozen
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
    rules : LatticeRules
        Which are which.
    special : mapping of str to ndarray
        Those that belong on the lattice and hold what has no place there: NaN,
        infinity, or a largest magnitude beyond 2^82 or below 2^-78. Their points are
        zeros.
    """

    layout: Layout
    points: tuple[LatticePoint, ...]
    exact: Arrays
    rules: LatticeRules = field(default=DEFAULT_RULES)
    special: Arrays = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """`model_digest` of the arrays."""
        return model_digest(self.on_demand(), self.layout)

    @property
    def exponents(self) -> tuple[int, ...]:
        """Exponent of each tensor on the lattice."""
        return tuple(point.exponent for point in self.points)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the point takes."""
        arrays = [*self.exact.values(), *self.special.values()]
        exact = sum(array.nbytes for array in arrays)
        return exact + sum(point.indices.nbytes for point in self.points)

    def arrays(self) -> dict[str, Array]:
        """Return the model as new arrays, in layout order."""
        return dict(self.on_demand().items())

    def on_demand(self) -> Arrays:
        """Return what `arrays` does, of which each is made whenever it is read."""
        return PointArrays(self)

    @staticmethod
    def tensor(spec: TensorSpec, point: LatticePoint) -> Array:
        """Return the tensor that a point stands for, as a new array."""
        values = point.values().reshape(spec.shape)
        return values.astype(to_dtype(spec.dtype), copy=False)

    @classmethod
    def of(
        cls,
        arrays: Arrays,
        exponents: Sequence[int],
        rules: LatticeRules = DEFAULT_RULES,
    ) -> ModelPoint:
        """Return the point that has these arrays, to the bit.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What `arrays` returned.
        exponents : sequence of int
            What `exponents` was.
        rules : LatticeRules
            What `rules` was.

        Raises
        ------
        CodecError
            If the arrays are not on these lattices.
        """
        layout = Layout.of(arrays)
        exact, lossy = rules.split(layout)
        if len(exponents) != len(lossy):
            raise CodecError(f"{len(exponents)} exponents for {len(lossy)} tensors")
        points = []
        special = {}
        for spec, exponent in zip(lossy, exponents, strict=True):
            if is_special(arrays[spec.name]):
                special[spec.name] = np.array(arrays[spec.name])
                points.append(_nothing(spec, exponent))
                continue
            points.append(_point_of(arrays[spec.name], exponent, spec))
        copies = {spec.name: np.array(arrays[spec.name]) for spec in exact}
        return cls(layout, tuple(points), copies, rules, special)


class PointArrays(Mapping[str, Array]):
    """The arrays of a point, which are not in memory beside it.

    Parameters
    ----------
    point : ModelPoint
        The point.
    """

    def __init__(self, point: ModelPoint) -> None:
        self._point = point
        lossy = point.rules.split(point.layout)[1]
        specs = zip(lossy, point.points, strict=True)
        self._lossy = {spec.name: (spec, own) for spec, own in specs}
        self._names = [spec.name for spec in point.layout.tensors]

    def __getitem__(self, name: str) -> Array:
        """Return a new array, as whoever asks may change it."""
        for kept in (self._point.special, self._point.exact):
            if name in kept:
                return kept[name].copy()
        return self._point.tensor(*self._lossy[name])

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all tensors, in layout order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._names)


def _point_of(array: Array, exponent: int, spec: TensorSpec) -> LatticePoint:
    """Return the point that a tensor is."""
    flat = array.reshape(-1)
    indices = np.empty(len(flat), np.int32)
    for part in blocks(len(flat)):
        scaled = times_power(flat[part].astype(np.float64), -exponent)
        limit = float(np.abs(scaled).max())
        if not limit <= 1 << _EXACT_BITS or (scaled != np.rint(scaled)).any():
            raise CodecError(f"tensor {spec.name!r} is not on its lattice")
        indices[part] = scaled
    return LatticePoint(compact(indices), exponent)


def is_special(array: Array) -> bool:
    """Whether a tensor has an element that has no place on a lattice."""
    with np.errstate(invalid="ignore"):  # numpy warns of NaN in 16 bits
        largest = _largest(array)
    return largest != 0 and not _SMALLEST <= largest <= _LARGEST


def _largest(array: Array) -> float:
    """Return the largest magnitude, without a copy; NaN if there is one."""
    if array.dtype.itemsize == 2:
        largest = _largest_bits(array, _MAGNITUDE)
        return float(np.array([largest], np.uint16).view(array.dtype.type)[0])
    return max(float(array.max(initial=0)), -float(array.min(initial=0)))


def _has_negative(array: Array) -> bool:
    """Whether an element is below 0; no element is NaN."""
    if array.dtype.itemsize == 2:
        return _largest_bits(array, 0xFFFF) > _NEGATIVE_ZERO
    return float(array.min(initial=0)) < 0


def _largest_bits(array: Array, mask: int) -> int:
    """Return the largest of what 16-bit numbers are as integers, under a mask.

    They are ordered as their magnitudes are. Numpy compares the numbers themselves
    some thirty times as slowly.
    """
    bits = array.reshape(-1).view(np.dtype("u2").newbyteorder(array.dtype.byteorder))
    parts = blocks(len(bits))
    return max((int((bits[part] & mask).max()) for part in parts), default=0)


def _nothing(spec: TensorSpec, exponent: int) -> LatticePoint:
    return LatticePoint(np.broadcast_to(np.int16(0), spec.size), exponent)


def publish_model(
    model: Arrays,
    before: ModelPoint | None,
    exponent: int | Sequence[int],
    rules: LatticeRules = DEFAULT_RULES,
) -> ModelPoint:
    """Return the next published point of a model.

    A tensor without negative elements is published without: a running variance stays
    one. A tensor with NaN, infinity, or beyond what a lattice holds is published as it
    is.

    Parameters
    ----------
    model : mapping of str to ndarray
        The model to approach; no array is kept or changed.
    before : ModelPoint or None
        Published last; `None` for the first.
    exponent : int or sequence of int
        The step is ``2^exponent``, but for what `LatticeRules` says; or the step of
        each tensor on the lattice.
    rules : LatticeRules
        As for `before`.

    Raises
    ------
    CodecError
        If the model has other tensors than `before`, or too many elements for a frame.
    """
    model = {name: np.asarray(array) for name, array in model.items()}
    layout = Layout.of(model)
    if before is not None and (before.layout, before.rules) != (layout, rules):
        raise CodecError("the model has other tensors than the one published before")
    exact, lossy = rules.split(layout)
    require_elements(sum(spec.size for spec in lossy))
    if not isinstance(exponent, int) and len(exponent) != len(lossy):
        raise CodecError(f"{len(exponent)} exponents for {len(lossy)} tensors")
    points = []
    special = {}
    for i, spec in enumerate(lossy):
        w = model[spec.name].reshape(-1)
        if is_special(w):
            special[spec.name] = np.array(model[spec.name], to_dtype(spec.dtype))
            points.append(_nothing(spec, MIN_EXPONENT))
            continue
        largest = _largest(w)
        if isinstance(exponent, int):
            own = rules.exponent(spec, largest, exponent)
        else:
            least = math.frexp(largest)[1] - LARGEST_BITS
            own = min(max(exponent[i], least, MIN_EXPONENT), MAX_EXPONENT)
        last = before.points[i] if before else None
        if before and spec.name in before.special:
            last = None
        if is_half(spec):
            point = _publish_tensor(w.astype(np.float32), last, own)
            points.append(_held_by_type(point, spec))
        else:
            points.append(_publish_tensor(w, last, own))
    copies = {s.name: np.array(model[s.name], to_dtype(s.dtype)) for s in exact}
    return ModelPoint(layout, tuple(points), copies, rules, special)


def _publish_tensor(
    w: Array, before: LatticePoint | None, exponent: int
) -> LatticePoint:
    if before is not None and not _continues(w, before, exponent):
        before = None
    point = publish(w, before, exponent)
    if int(point.indices.min()) < 0 and not _has_negative(w):
        return publish(w, None, exponent)
    return point


def _held_by_type(point: LatticePoint, spec: TensorSpec) -> LatticePoint:
    """Return the nearest point, ties to even, of which a 16-bit type holds all values.

    Numbers of such a type that are further apart than the lattice's are all on it.
    """
    dtype = to_dtype(spec.dtype)
    limit = LARGEST_16_BIT[spec.dtype]
    most = int(min(np.ldexp(limit, -point.exponent), 1 << _EXACT_BITS))
    indices = np.empty(len(point.indices), np.int32)
    for part in blocks(len(indices)):
        near = np.clip(point.indices[part], -most, most).astype(np.float32)
        values = times_power(near, point.exponent).astype(dtype).astype(np.float32)
        indices[part] = times_power(values, -point.exponent).astype(np.int32)
    return LatticePoint(compact(indices), point.exponent)


def _continues(w: Array, before: LatticePoint, exponent: int) -> bool:
    """Whether float32 and 32-bit integers hold the next point on the lattice so far."""
    finest = min(exponent, before.exponent)
    top = math.frexp(_largest(w))[1]
    last = before.exponent + before.largest.bit_length()
    return (
        exponent - finest <= LARGEST_BITS
        and top - finest <= _EXACT_BITS - 1
        and max(top, last) - exponent <= _MOVE_BITS
    )
