"""What a server remembers of the models it published, and the frames it sends of them.

All of it is immutable: publishing returns another history.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .errors import CodecError, StateMismatchError
from .lattice_model import (
    DEFAULT_GRIDS,
    Grids,
    ModelPoint,
    decode_model,
    encode_model,
    publish_model,
)
from .layout import Array, Arrays, Layout, TensorSpec

FIRST_BITS = 6
_LOWEST, _HIGHEST, _OF_ZERO = -90, 50, -16
_GAUSSIAN_BITS = 2.05  # entropy of a normal variable in steps of its deviation
_CURRENT, _FIRST, _OLDER = "current/", "first", "older/"
_GRIDS, _EXPONENTS, _DIGEST = "grids", "exponents", "digest"


def first_exponent(
    model: Arrays, grids: Grids = DEFAULT_GRIDS, bits: int = FIRST_BITS
) -> int:
    """Return the exponent of a first point, by the root mean square of the model.

    Parameters
    ----------
    model : mapping of str to ndarray
        The initial model.
    grids : Grids
        What is on the lattice.
    bits : int
        The step is the power of two nearest to the root mean square, divided by 2 to
        the power of `bits`. With 6 a whole model costs about 8 bits an element and has
        a squared error of 2e-5 of its square; with 0 about 2 bits.
    """
    layout = Layout.of(model)
    arrays = (model[spec.name] for spec in _coarse(layout, grids))
    return _log2(_root_mean_square(arrays)) - bits


def initial_point(
    model: Arrays, exponent: int | None = None, grids: Grids = DEFAULT_GRIDS
) -> ModelPoint:
    """Return the first point of a history that starts from a model.

    A device that can rebuild that model, from a seed or a file, computes the point
    itself. If the digest is that of the server's, it can be sent a change of it
    instead of a whole model.

    Parameters
    ----------
    model : mapping of str to ndarray
        The initial model.
    exponent : int, optional
        As on the server; by default `first_exponent`.
    grids : Grids
        As on the server.
    """
    chosen = first_exponent(model, grids) if exponent is None else exponent
    return publish_model(model, None, chosen, grids)


@dataclass(frozen=True)
class _Older:
    """A point, and the one published after it."""

    point: ModelPoint
    next: ModelPoint

    @cached_property
    def back(self) -> bytes:
        """The frame that leads back from the next."""
        try:
            return encode_model(self.point, self.next)
        except CodecError:
            return encode_model(self.point)


@dataclass(frozen=True)
class PointHistory:
    """The published model, and older ones that devices may still hold.

    Start one with `start`; a device's model is named by its `model_digest`.

    Parameters
    ----------
    current : ModelPoint
        Published last.
    first : ModelPoint, optional
        The initial point that devices can rebuild; never forgotten. `None` without a
        shared start.
    older : tuple
        Points before `current`, latest first.
    exponent : int
        Of the last step.
    step_sigmas : float
        The next step in deviations of what is yet unpublished.
    max_points : int
        Most older points to remember.
    max_bytes : int
        Most memory of all points but `current` and `first`.
    first_frame : bytes
        Frame of the whole `first`; empty without one.
    """

    current: ModelPoint
    first: ModelPoint | None
    older: tuple[_Older, ...]
    exponent: int
    step_sigmas: float
    max_points: int
    max_bytes: int
    first_frame: bytes = field(default=b"", repr=False)
    _frames: dict[bytes | None, bytes] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def start(
        cls,
        model: Arrays,
        *,
        shared: bool = False,
        exponent: int | None = None,
        grids: Grids = DEFAULT_GRIDS,
        step_sigmas: float = 2.0,
        max_points: int = 30,
        max_bytes: int = 1 << 30,
    ) -> PointHistory:
        """Return the history of a model that is published for the first time.

        Parameters
        ----------
        model : mapping of str to ndarray
            The initial model.
        shared : bool
            Whether devices can rebuild it; its point is then remembered for ever.
        exponent : int, optional
            Of the first step; by default `first_exponent`.
        grids : Grids
            What is on the lattice.
        step_sigmas : float
            See `step_exponent`.
        max_points, max_bytes : int
            How much to remember: number of older points, and their memory.

        Raises
        ------
        CodecError
            If the model cannot be published; see `publish_model`.
        """
        if not 0 < step_sigmas < math.inf:
            raise CodecError(f"step_sigmas must be above 0, not {step_sigmas}")
        if exponent is None:
            exponent = first_exponent(model, grids)
        point = publish_model(model, None, exponent, grids)
        whole = encode_model(point) if shared else b""
        return cls(
            point,
            point if shared else None,
            (),
            exponent,
            step_sigmas,
            max_points,
            max_bytes,
            whole,
            {None: whole} if whole else {},
        )

    def step_exponent(self, model: Arrays) -> int:
        """Return the exponent of the step that suits a model.

        The power of two nearest to `step_sigmas` deviations (root mean squares) of the
        model from the current point, over the tensors that have no finer grid, or all
        if all have. That of the last step if there is nothing to publish.
        """
        now = self.current.arrays()
        specs = _coarse(self.current.layout, self.current.grids)
        gap = _root_mean_square(
            np.subtract(model[spec.name], now[spec.name], dtype=np.float64)
            for spec in specs
        )
        return _log2(gap * self.step_sigmas) if gap else self.exponent

    def publish(self, model: Arrays, exponent: int | None = None) -> PointHistory:
        """Return the history after a model was published.

        Parameters
        ----------
        model : mapping of str to ndarray
            The model, of the tensors published before.
        exponent : int, optional
            The step is ``2^exponent``; by default `step_exponent`.

        Raises
        ------
        CodecError
            If the model cannot be published; see `publish_model`.
        """
        now = self.current
        if Layout.of(model) != now.layout:
            raise CodecError(
                "the model has other tensors than the one published before"
            )
        chosen = self.step_exponent(model) if exponent is None else exponent
        point = publish_model(model, now, chosen, now.grids)
        older = (_Older(now, point), *self.older)[: self.max_points]
        room, kept = self.max_bytes, 0
        for entry in older:
            room -= entry.point.nbytes
            if room < 0:
                break
            kept += 1
        return replace(
            self, current=point, older=older[:kept], exponent=chosen, _frames={}
        )

    @cached_property
    def bases(self) -> Mapping[bytes, ModelPoint]:
        """Points that `frame` can start from, by digest; `current` is one."""
        points = [self.current, *(entry.point for entry in self.older)]
        if self.first is not None:
            points.append(self.first)
        return {point.digest: point for point in points}

    def frame(self, base: bytes | None) -> bytes:
        """Return the frame that brings a device to the current model.

        Parameters
        ----------
        base : bytes or None
            Digest of the model that the device holds, one of `bases`; `None` for none.

        Returns
        -------
        bytes
            For `decode_model`: the change, or the whole model where that is shorter.
            The same object for the same base.

        Raises
        ------
        StateMismatchError
            If the base is not remembered.
        """
        if base is not None and base not in self.bases:
            raise StateMismatchError(f"model {base.hex()} is not remembered")
        if base not in self._frames:
            self._frames[base] = self._encode(base)
        return self._frames[base]

    def _encode(self, base: bytes | None) -> bytes:
        if base is None:
            return encode_model(self.current)
        try:
            change = encode_model(self.current, self.bases[base])
        except CodecError:
            return self.frame(None)
        if len(change) < _expected_bytes(self.current) / 2:
            return change
        return min(change, self.frame(None), key=len)

    def to_arrays(self) -> dict[str, Array]:
        """Return all that is remembered, as plain arrays for a checkpoint.

        The current model as it is, the first whole, and each older one as the change of
        the next: frames that are made once and stay from publication to publication.
        """
        state = {_CURRENT + name: a for name, a in self.current.arrays().items()}
        grids = self.current.grids
        state[_GRIDS] = np.array([grids.exact_below, grids.fine_below], np.int64)
        state[_EXPONENTS] = np.array([self.exponent, *self.current.exponents], np.int16)
        state[_DIGEST] = np.frombuffer(self.current.digest, np.uint8)
        if self.first is not None:
            state |= _pack(_FIRST, self.first_frame, self.first)
        for i, entry in enumerate(self.older):
            state |= _pack(f"{_OLDER}{i}", entry.back, entry.point)
        return state

    @classmethod
    def from_arrays(
        cls,
        state: Arrays,
        *,
        step_sigmas: float = 2.0,
        max_points: int = 30,
        max_bytes: int = 1 << 30,
    ) -> PointHistory:
        """Return the history that `to_arrays` was taken of.

        Parameters
        ----------
        state : mapping of str to ndarray
            What `to_arrays` returned.
        step_sigmas, max_points, max_bytes
            See `start`.

        Raises
        ------
        CodecError
            If the arrays are not such a state.
        """
        try:
            exact_below, fine_below = state[_GRIDS].tolist()
            grids = Grids(exact_below, fine_below)
            exponent, *exponents = state[_EXPONENTS].tolist()
            start = len(_CURRENT)
            arrays = {
                name[start:]: array
                for name, array in state.items()
                if name.startswith(_CURRENT)
            }
            current = ModelPoint.of(arrays, exponents, grids)
            if current.digest != state[_DIGEST].tobytes():
                raise CodecError("the current model differs from its digest")
            first, first_frame = None, b""
            if _FIRST in state:
                first = _unpack(_FIRST, state, current)
                first_frame = state[_FIRST].tobytes()
            older: list[_Older] = []
            point = current
            while f"{_OLDER}{len(older)}" in state:
                before = _unpack(f"{_OLDER}{len(older)}", state, point)
                older.append(_Older(before, point))
                point = before
        except (KeyError, TypeError, ValueError) as err:
            raise CodecError(f"this is no state of a publication: {err!r}") from err
        return cls(
            current,
            first,
            tuple(older),
            exponent,
            step_sigmas,
            max_points,
            max_bytes,
            first_frame,
        )


def _pack(name: str, frame: bytes, point: ModelPoint) -> dict[str, Array]:
    return {
        name: np.frombuffer(frame, np.uint8),
        f"{name}.{_EXPONENTS}": np.array(point.exponents, np.int16),
    }


def _unpack(name: str, state: Arrays, next_: ModelPoint) -> ModelPoint:
    frame = state[name].astype(np.uint8, casting="equiv").tobytes()
    arrays = decode_model(frame, next_.arrays(), expected=next_.layout)
    exponents = state[f"{name}.{_EXPONENTS}"].tolist()
    point = ModelPoint.of(arrays, exponents, next_.grids)
    if point.layout != next_.layout:
        raise CodecError(f"{name} is of another layout")
    return point


def _expected_bytes(point: ModelPoint) -> float:
    """Return about how long a frame of the whole model is, without making it."""
    bits = 0.0
    for own in point.points:
        size = _root_mean_square([own.indices])
        bits += len(own.indices) * max(0.0, math.log2(size + 2.0**-9) + _GAUSSIAN_BITS)
    return bits / 8


def _coarse(layout: Layout, grids: Grids) -> list[TensorSpec]:
    """Return the tensors on the model's own grid, or where none is, all on a grid."""
    _, lossy = grids.split(layout)
    return [spec for spec in lossy if spec.size >= grids.fine_below] or lossy


def _root_mean_square(arrays: Iterable[Array]) -> float:
    total, count = 0.0, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for array in arrays:
            total += float(np.square(array, dtype=np.float64).sum())
            count += array.size
    return math.sqrt(total / count) if count else 0.0


def _log2(value: float) -> int:
    """Return the nearest exponent, within what a step may be."""
    if not 0 < value < math.inf:
        return _HIGHEST if value else _OF_ZERO
    return min(max(round(math.log2(value)), _LOWEST), _HIGHEST)
