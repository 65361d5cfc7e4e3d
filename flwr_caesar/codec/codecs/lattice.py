"""`lattice`: dead-zone integers on a power-of-two lattice."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..coding.blocks import blocks
from ..coding.lattice_block import decode_block, max_block_bytes
from ..coding.small_block import (
    WORTH_LEAVING_OUT,
    decode_small_block,
    encode_shorter,
    max_small_block_bytes,
)
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.lattice_steps import (
    MAX_EXPONENT,
    MIN_EXPONENT,
    MIN_OFFSET,
    Quantised,
    Target,
    extra_bits,
    quantise,
)
from ..quantisers.quantise import lattice_values
from ..quantisers.step_search import Step

_HEAD = struct.Struct("<hB")
_ABSENT = MIN_OFFSET - 1


@dataclass(frozen=True)
class LatticeCodec(LossyCodec):
    """Dead-zone quantiser with one step for all tensors, context-coded.

    ``q = sign(x) floor(|x| / step + 1 - dead_zone)``, ``xhat = q step``. The step is
    ``m 2^e`` with `m` from 4 to 7, so that decoded values are integers on the lattice
    ``2^e`` and differences of two of them are exact. Equal steps give all tensors the
    least squared error for a total rate. Biased: put it under `ErrorFeedback`, and set
    `dead_zone` to 0.5 there: what is left out of small elements again and again then
    comes late less often, which is worth more than the bits.

    Exactly one of `rate`, `step` and `nmse` is in force: `step` if not 0, else `nmse`
    if not 0, else `rate`.

    Parameters
    ----------
    rate : float
        Bits an element of the lossy tensors, side information included; met within a
        few percent, from a sample.
    step : float
        Quantiser step in units of the update, taken to the nearest ``m 2^e``.
    nmse : float
        ``||x - xhat||^2 / ||x||^2`` over the lossy tensors; met within a few percent.
    exact_below : int
        Smaller tensors are sent exactly.
    fine_below : int
        Smaller tensors that are not exact, such as biases and norms with an
        `exact_below` of 0, are quantised with a step 64 times finer: about a byte an
        element, with an error that does not matter. `rate` and `nmse` count the other
        tensors, if there are any. 0 for none.
    dead_zone : float
        From 0.5, rounding to nearest, to 1, truncation; 0: what costs the fewest bits
        at the error or has the least error at the rate, and 0.66 for a `step`. With
        one that is given, an error is met from below, by up to a third.

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
    dead_zone: float = 0.0

    id: ClassVar[str] = "lattice"
    later: ClassVar[frozenset[str]] = frozenset({"fine_below", "dead_zone"})

    def __post_init__(self) -> None:
        super().__post_init__()
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
        if self.dead_zone and not 0.5 <= self.dead_zone <= 1:
            raise CodecError(
                f"lattice: dead_zone must be 0 or in [0.5, 1], not {self.dead_zone}"
            )

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        found = self._quantise(vector, lossy)
        del vector  # of the model's size, and `_pack` takes as much
        return _pack(found, lossy), {}

    def _encode_decoded_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], Vector]:
        found = self._quantise(vector, lossy)
        del vector
        return _pack(found, lossy), {}, self._values(found, lossy)

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        return self._values(_unpack(reader, lossy), lossy), {}

    def _quantise(self, vector: Vector, lossy: Sequence[TensorSpec]) -> Quantised:
        target = Target(
            self.rate, self.step, self.nmse, self.fine_below, self.dead_zone
        )
        return quantise(vector, lossy, target)

    def _values(self, found: Quantised, lossy: Sequence[TensorSpec]) -> Vector:
        """Return the vector that the indices stand for, in their place."""
        values = found.indices.view(np.float32)
        parts = zip(lossy, slices(lossy), found.offsets, strict=True)
        with np.errstate(over="ignore"):
            for spec, part, offset in parts:
                own = found.step.exponent + offset - extra_bits(spec, self.fine_below)
                for at in blocks(spec.size):
                    piece = lattice_values(found.indices[part][at], own)
                    piece *= np.float32(found.step.multiple)
                    values[part][at] = piece
        return values


def _pack(found: Quantised, lossy: Sequence[TensorSpec]) -> list[Section]:
    """Return the sections of the integers, and of the steps where these differ."""
    pieces = [found.indices[part] for part in slices(lossy)]
    zero = [not piece.any() for piece in pieces]
    absent = sum(len(p) for p, z in zip(pieces, zero, strict=True) if z)
    indices, kept, steps = found.indices, lossy, []
    if any(found.offsets) or absent >= WORTH_LEAVING_OUT:
        own = np.where(zero, _ABSENT, found.offsets).astype(np.int8)
        steps = [Section("STEP", own.tobytes(), itemsize=1)]
        kept = [spec for spec, z in zip(lossy, zero, strict=True) if not z]
        if any(zero):
            present = [p for p, z in zip(pieces, zero, strict=True) if not z]
            indices = np.concatenate([np.empty(0, np.int32), *present])
    is_small, block = encode_shorter(indices, kept)
    tag = "RICE" if is_small else "LATS" if steps else "LATT"
    head = _HEAD.pack(found.step.exponent, found.step.multiple)
    return [*steps, Section(tag, head + block, itemsize=1)]


def _unpack(reader: FrameReader, lossy: Sequence[TensorSpec]) -> Quantised:
    own = [0] * len(lossy)
    tag = "LATT"
    if "STEP" in reader:
        data = reader.section("STEP", size=len(lossy))
        own, tag = np.frombuffer(data, np.int8).tolist(), "LATS"
    if "RICE" in reader:
        tag = "RICE"
    kept = [spec for spec, offset in zip(lossy, own, strict=True) if offset != _ABSENT]
    most = max_small_block_bytes(kept) if tag == "RICE" else max_block_bytes(kept)
    data = reader.section(tag, max_size=_HEAD.size + most)
    if len(data) < _HEAD.size:
        raise CodecError("lattice is truncated")
    exponent, multiple = _HEAD.unpack_from(data)
    if not (MIN_EXPONENT <= exponent <= MAX_EXPONENT and 4 <= multiple <= 7):
        raise CodecError("lattice has a malformed step")
    decode = decode_small_block if tag == "RICE" else decode_block
    indices = decode(data[_HEAD.size :], kept)
    if len(kept) < len(lossy):
        present = iter(slices(kept))
        pieces = [
            np.zeros(spec.size, np.int32)
            if offset == _ABSENT
            else indices[next(present)]
            for spec, offset in zip(lossy, own, strict=True)
        ]
        indices = np.concatenate(pieces)
    offsets = tuple(0 if offset == _ABSENT else offset for offset in own)
    return Quantised(Step(multiple, exponent), offsets, indices)
