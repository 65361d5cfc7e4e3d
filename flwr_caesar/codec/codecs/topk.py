"""`topk`: the largest elements of each tensor, the rest zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.positions import (
    Positions,
    encode_positions,
    read_positions,
)
from ..coding.values import from_half, half_exponents, to_half
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.select import count_kept, require_density, top_k_mask

_VALUE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}


@frozen
class TopKCodec(LossyCodec):
    """Top-k sparsification, per tensor.

    Of each lossy tensor of `n` elements the ``ceil(density * n)`` largest in magnitude
    are sent, ``TopK(x) = argmin_y {||y - x|| : ||y||_0 <= k}``. Biased: put it under
    `ErrorFeedback` for updates.

    Parameters
    ----------
    density : float
        Fraction of elements kept, in ``(0, 1]``.
    values : {"float32", "float16"}
        Precision of the kept values. Where float16 does not reach, beyond 65,504 or
        far below its smallest number, a tensor's values are sent with a power of two of
        their own.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Aji and Heafield (2017), arXiv:1704.05021.
    """

    density: float = 0.01
    values: str = "float32"
    exact_below: int = 1024

    id: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        require_density(self.id, self.density)
        if self.values not in _VALUE_DTYPES:
            raise CodecError(
                f"topk: values must be one of {', '.join(_VALUE_DTYPES)}, "
                f"not {self.values!r}"
            )
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        mask = np.empty(len(vector), bool)
        for part in slices(lossy):
            x = vector[part]
            mask[part] = top_k_mask(x, count_kept(len(x), self.density))
        positions = np.flatnonzero(mask)
        positions = positions[vector[positions] != 0]
        where = Section("POS", encode_positions(positions, len(vector)))
        return [where, *self._pack(positions, vector[positions], lossy)], {}

    def _pack(
        self, positions: Positions, kept: Vector, lossy: Sequence[TensorSpec]
    ) -> list[Section]:
        """Return the sections of the kept values."""
        if self.values == "float16":
            owners = _owners(positions, lossy)
            exponents = half_exponents(kept, owners, len(lossy))
            if exponents.any():
                return [
                    Section("EXP", exponents.tobytes(), itemsize=1),
                    Section("VALX", to_half(kept, exponents[owners]).tobytes()),
                ]
        return [Section("VAL", kept.astype(_VALUE_DTYPES[self.values]).tobytes())]

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
        positions = read_positions(reader, "POS", len(vector))
        vector[positions] = self._unpack(reader, positions, lossy)
        return vector, {}

    def _unpack(
        self, reader: FrameReader, positions: Positions, lossy: Sequence[TensorSpec]
    ) -> Array:
        dtype = _VALUE_DTYPES[self.values]
        size = len(positions) * dtype.itemsize
        if self.values != "float16" or "VALX" not in reader:
            return np.frombuffer(reader.section("VAL", size=size), dtype)
        exponents = np.frombuffer(reader.section("EXP", size=len(lossy)), np.int8)
        values = np.frombuffer(reader.section("VALX", size=size), dtype)
        return from_half(values, exponents[_owners(positions, lossy)])


def _owners(positions: Positions, lossy: Sequence[TensorSpec]) -> Positions:
    """Return in which tensor each position lies."""
    ends = [part.stop for part in slices(lossy)]
    return np.searchsorted(ends, positions, side="right")
