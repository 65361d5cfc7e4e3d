"""What a server remembers of the models it published, and the frames it sends of them.

All of it is immutable: publishing returns another history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError, StateMismatchError
from ..contract.layout import Array, Arrays, Layout
from ..quantisers.tensor_steps import root_mean_square
from .lattice_model import decode_model, encode_model, is_undoable, leads_to
from .model_point import DEFAULT_RULES, LatticeRules, ModelPoint, publish_model
from .model_steps import (
    FIRST_BITS,
    expected_bits,
    first_exponents,
    next_point,
)

_CURRENT, _FIRST, _OLDER = "current/", "first", "older/"
_RULES, _EXPONENTS, _DIGEST = "grids", "exponents", "digest"


def initial_point(
    model: Arrays,
    exponent: int | None = None,
    rules: LatticeRules = DEFAULT_RULES,
    bits: int = FIRST_BITS,
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
        One step for all tensors, as on the server; by default each has its own.
    rules : LatticeRules
        As on the server.
    bits : int
        As on the server; see `model_steps.first_exponents`.
    """
    if exponent is not None:
        return publish_model(model, None, exponent, rules)
    return publish_model(model, None, first_exponents(model, rules, bits), rules)


@frozen
class _Older:
    """A point, and the one published after it."""

    point: ModelPoint
    next: ModelPoint

    @cached_property
    def change(self) -> bytes:
        """The frame that leads to the next."""
        return encode_model(self.next, self.point)

    @cached_property
    def back(self) -> bytes:
        """A frame by which to go back from the next."""
        if is_undoable(self.change):
            return self.change
        return encode_model(self.point, self.next)

    def at_rest(self) -> _Older:
        """Return the same without a change that is kept for nothing any more."""
        return self if "back" in self.__dict__ else _Older(self.point, self.next)


@frozen
class PointHistory:
    """The published model, and older ones that devices may still hold.

    `start` makes the first; a device's model is named by its `model_digest`.

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
        The next step, at most, in deviations of what devices lack.
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
        rules: LatticeRules = DEFAULT_RULES,
        bits: int = FIRST_BITS,
        step_sigmas: float = 2.83,
        max_points: int = 100,
        max_bytes: int = 1 << 30,
        grids: LatticeRules | None = None,
    ) -> PointHistory:
        """Return the history of a model that is published for the first time.

        Parameters
        ----------
        model : mapping of str to ndarray
            The initial model.
        shared : bool
            Whether devices can rebuild it; its point is then remembered for ever.
        exponent : int, optional
            Of the first step of all tensors; by default each has its own.
        rules : LatticeRules
            What is on the lattice.
        bits : int
            How fine the first point is; see `model_steps.first_exponents`.
        step_sigmas : float
            See `model_steps.next_point`.
        max_points, max_bytes : int
            How much to remember: number of older points, and their memory.
        grids : LatticeRules, optional
            What `rules` was called.

        Raises
        ------
        CodecError
            If the model cannot be published; see `publish_model`.
        """
        if not 0 < step_sigmas < math.inf:
            raise CodecError(f"step_sigmas must be above 0, not {step_sigmas}")
        point = initial_point(model, exponent, grids or rules, bits)
        whole = encode_model(point) if shared else b""
        return cls(
            point,
            point if shared else None,
            (),
            max(point.exponents, default=0) if exponent is None else exponent,
            step_sigmas,
            max_points,
            max_bytes,
            whole,
            {None: whole} if whole else {},
        )

    def publish(
        self, model: Arrays, exponent: int | None = None, *, absence: int = 1
    ) -> PointHistory:
        """Return the history after a model was published.

        Parameters
        ----------
        model : mapping of str to ndarray
            The model, of the tensors published before.
        exponent : int, optional
            The step is ``2^exponent``; by default what suits the model
            (`model_steps.next_point`), for each tensor.
        absence : int
            How many models ago devices mostly got theirs, this one included; they lack
            what changed since, and the step suits that.

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
        if exponent is None:
            held = self.older[: max(absence, 1) - 1]
            since = held[-1].point if held else now
            exponent, point = next_point(
                model, now, since, self.step_sigmas, self.exponent
            )
        else:
            point = publish_model(model, now, exponent, now.rules)
        before = (entry.at_rest() for entry in self.older)
        older = (_Older(now, point), *before)[: self.max_points]
        room, kept = self.max_bytes, 0
        for entry in older:
            room -= entry.point.nbytes
            if room < 0:
                break
            kept += 1
        return replace(
            self, current=point, older=older[:kept], exponent=exponent, _frames={}
        )

    @cached_property
    def bases(self) -> Mapping[bytes, ModelPoint]:
        """Points that `frame` can start from, by digest; `current` is one."""
        points = [self.current, *(entry.point for entry in self.older)]
        if self.first is not None:
            points.append(self.first)
        return {point.digest: point for point in points}

    @cached_property
    def ages(self) -> Mapping[bytes, int]:
        """How many publications ago a model was the current one, by digest; at least 1.

        One that is not in it is older than all that are.
        """
        found = {self.current.digest: 1}
        for age, entry in enumerate(self.older, 1):
            found.setdefault(entry.point.digest, age)
        return found

    @property
    def expected_bytes(self) -> float:
        """About how long the frame of the whole model is, without making it."""
        return _expected_bytes(self.current)

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
        if self.older and base == self.older[0].point.digest:
            change = self.older[0].change
        else:
            change = encode_model(self.current, self.bases[base])
        if len(change) < self.expected_bytes / 2:
            return change
        return min(change, self.frame(None), key=len)

    def to_arrays(self) -> dict[str, Array]:
        """Return all that is remembered, as plain arrays for a checkpoint.

        The current model as it is, the first whole, and each older one as the change
        to the next, or from the next where that cannot be undone: frames that are made
        once and stay from publication to publication.
        """
        state = {_CURRENT + name: a for name, a in self.current.arrays().items()}
        rules = self.current.rules
        numbers = [rules.exact_below, rules.fine_below]
        if rules.halves:  # later than the first states
            numbers.append(1)
        state[_RULES] = np.array(numbers, np.int64)
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
        step_sigmas: float = 2.83,
        max_points: int = 100,
        max_bytes: int = 1 << 30,
        grids: LatticeRules | None = None,
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
            exact_below, fine_below, *halves = state[_RULES].tolist()
            if halves not in ([], [1]):
                raise ValueError(f"rules {halves} that are not known")
            rules = LatticeRules(exact_below, fine_below, bool(halves))
            exponent, *exponents = state[_EXPONENTS].tolist()
            start = len(_CURRENT)
            arrays = {
                name[start:]: array
                for name, array in state.items()
                if name.startswith(_CURRENT)
            }
            current = ModelPoint.of(arrays, exponents, rules)
            if current.digest != state[_DIGEST].tobytes():
                raise CodecError("the current model differs from its digest")
            first, first_frame = None, b""
            if _FIRST in state:
                first = _unpack(_FIRST, state, current)
                first_frame = state[_FIRST].tobytes()
            older: list[_Older] = []
            point = current
            while (name := f"{_OLDER}{len(older)}") in state:
                before = _unpack(name, state, point)
                older.append(_Older(before, point))
                # As it is, or the next checkpoint would take all of them again.
                older[-1].__dict__["back"] = state[name].tobytes()
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
    # Earlier releases wrote how to come from the next one only.
    undo = name != _FIRST and leads_to(frame) == next_.digest
    arrays = decode_model(frame, next_.arrays(), expected=next_.layout, undo=undo)
    exponents = state[f"{name}.{_EXPONENTS}"].tolist()
    point = ModelPoint.of(arrays, exponents, next_.rules)
    if point.layout != next_.layout:
        raise CodecError(f"{name} is of another layout")
    return point


def _expected_bytes(point: ModelPoint) -> float:
    """Return about how long a frame of the whole model is, without making it."""
    scales = [root_mean_square(own.indices) for own in point.points]
    special = sum(array.nbytes for array in point.special.values())
    return special + expected_bits(scales, [len(p.indices) for p in point.points]) / 8
