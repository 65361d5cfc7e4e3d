"""`lattice`: dead-zone integers on a power-of-two grid."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Codec
from .contexts import as_channels, fit_scales, scale_classes
from .errors import CodecError
from .exact import pack_exact, require_exact_below, split_exact, unpack_exact
from .frame import FrameReader, Section
from .integers import Integers
from .lattice_block import decode_block, encode_block, max_block_bytes
from .layout import Array, Arrays, Layout, TensorSpec, to_dtype
from .planner import DEFAULT_DEAD_ZONE, Plan, Planner, Step
from .quantise import lattice_values, quantise_dead_zone
from .state import CodecState
from .vector import Vector, gather, in_layout_order, scatter, slices

FINE_BITS = 6
_HEAD = struct.Struct("<hB")
_MIN_EXPONENT, _MAX_EXPONENT = -149, 100
_FRAME_BITS, _BITS_PER_SCALE = 1600, 5


@dataclass(frozen=True)
class Lattice(Codec):
    """Dead-zone quantiser with one step for all tensors, context-coded.

    ``q = sign(x) floor(|x| / step + 1 - dead_zone)``, ``xhat = q step``. The step is
    ``m 2^e`` with `m` from 4 to 7, so that decoded values are integers on the grid
    ``2^e`` and differences of two of them are exact. Equal steps give all tensors the
    least squared error for a total rate. Biased: put it under `ErrorFeedback`.

    Exactly one of `rate`, `step` and `nmse` is in force: `step` if not 0, else `nmse`
    if not 0, else `rate`.

    Parameters
    ----------
    rate : float
        Bits an element of the lossy tensors, side information included; met within a
        few percent, from a sample.
    step : float
        Quantiser step in units of the update, taken to the nearest ``m 2^e``; the
        dead zone is then 0.66 of it.
    nmse : float
        ``||x - xhat||^2 / ||x||^2`` over the lossy tensors; met within a few percent.
    exact_below : int
        Smaller tensors are sent exactly.
    fine_below : int
        Smaller tensors that are not exact, such as biases and norms with an
        `exact_below` of 0, are quantised with a step 64 times finer: about a byte an
        element, with an error that does not matter. `rate` and `nmse` count the other
        tensors, if there are any. 0 for none.

    References
    ----------
    Sullivan (1996), "Efficient scalar quantization of exponential and Laplacian random
    variables", for the dead zone with reconstruction at multiples of the step.
    """

    rate: float = 1.0
    step: float = 0.0
    nmse: float = 0.0
    exact_below: int = 1024
    fine_below: int = 0

    id: ClassVar[str] = "lattice"
    later: ClassVar[frozenset[str]] = frozenset({"fine_below"})

    def __post_init__(self) -> None:
        require_exact_below(self.id, self.exact_below)
        if self.fine_below and self.fine_below <= self.exact_below:
            raise CodecError(
                f"lattice: fine_below must be 0 or above exact_below, which is "
                f"{self.exact_below}, not {self.fine_below}"
            )
        if not 0 < self.rate <= 16:
            raise CodecError(f"lattice: rate must be in (0, 16], not {self.rate}")
        if self.step:
            Step.near(self.step)
        if not 0 <= self.nmse < 1:
            raise CodecError(f"lattice: nmse must be in [0, 1), not {self.nmse}")

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        if lossy:
            sections.append(_pack(*self._quantise(arrays, lossy), lossy))
        return sections, {}

    def _encode_decoded(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], dict[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        decoded = {s.name: np.array(arrays[s.name], to_dtype(s.dtype)) for s in exact}
        if lossy:
            step, indices = self._quantise(arrays, lossy)
            sections.append(_pack(step, indices, lossy))
            decoded |= self._values(step, indices, lossy)
        return sections, {}, in_layout_order(layout, decoded)

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if lossy:
            data = reader.section("LATT", max_size=_HEAD.size + max_block_bytes(lossy))
            if len(data) < _HEAD.size:
                raise CodecError("lattice is truncated")
            exponent, multiple = _HEAD.unpack_from(data)
            if not (_MIN_EXPONENT <= exponent <= _MAX_EXPONENT and 4 <= multiple <= 7):
                raise CodecError("lattice has a malformed step")
            indices = decode_block(data[_HEAD.size :], lossy)
            arrays |= self._values(Step(multiple, exponent), indices, lossy)
        return in_layout_order(layout, arrays), {}

    def _quantise(
        self, arrays: Arrays, lossy: Sequence[TensorSpec]
    ) -> tuple[Step, Integers]:
        """Return the step and the indices of all tensors, one after another."""
        coarse = [spec for spec in lossy if not self._is_fine(spec)] or lossy
        plan = self._plan(gather(arrays, coarse), coarse)
        indices = [
            quantise_dead_zone(
                gather(arrays, [spec]),
                math.ldexp(plan.step.value, -self._extra_bits(spec)),
                plan.dead_zone,
            )
            for spec in lossy
        ]
        return plan.step, np.concatenate(indices)

    def _values(
        self, step: Step, indices: Integers, lossy: Sequence[TensorSpec]
    ) -> dict[str, Array]:
        """Return the tensors that the indices stand for."""
        values = np.empty(len(indices), np.float32)
        with np.errstate(over="ignore"):
            for spec, part in zip(lossy, slices(lossy), strict=True):
                own = step.exponent - self._extra_bits(spec)
                values[part] = lattice_values(indices[part], own)
            values *= np.float32(step.multiple)
            return scatter(values, lossy)

    def _is_fine(self, spec: TensorSpec) -> bool:
        return spec.size < self.fine_below

    def _extra_bits(self, spec: TensorSpec) -> int:
        return FINE_BITS if self._is_fine(spec) else 0

    def _plan(self, vector: Vector, specs: Sequence[TensorSpec]) -> Plan:
        if self.step:
            return Plan(Step.near(self.step), DEFAULT_DEAD_ZONE)
        scale = float(np.sqrt(np.square(vector, dtype=np.float64).mean()))
        if scale < 2.0**-90:
            return Plan(Step.near(2.0**-100), DEFAULT_DEAD_ZONE)
        reference = Step.near(min(scale, 2.0**90))
        classes = np.empty(len(vector), np.uint8)
        start = num_scales = 0
        for spec in specs:
            shape = as_channels(spec.shape)
            part = vector[start : start + spec.size].reshape(shape)
            scales = fit_scales(part, np.float32(reference.value))
            own = scale_classes(scales, shape)
            classes[start : start + spec.size] = own.reshape(-1)
            num_scales += len(scales)
            start += spec.size
        planner = Planner(vector, classes, reference)
        if self.nmse:
            return planner.for_error(self.nmse)
        side = (_FRAME_BITS + _BITS_PER_SCALE * num_scales) / len(vector)
        return planner.for_rate(max(self.rate - side, self.rate / 4))


def _pack(step: Step, indices: Integers, lossy: Sequence[TensorSpec]) -> Section:
    head = _HEAD.pack(step.exponent, step.multiple)
    return Section("LATT", head + encode_block(indices, lossy), itemsize=1)
