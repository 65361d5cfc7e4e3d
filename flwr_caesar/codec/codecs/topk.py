"""`topk`: the largest elements of each tensor, the rest zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..coding.positions import (
    Positions,
    decode_positions,
    encode_positions,
    max_positions_bytes,
)
from ..coding.values import from_half, half_exponents, to_half
from ..contract.base import Codec
from ..contract.errors import CodecError
from ..contract.exact import pack_exact, require_exact_below, split_exact, unpack_exact
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Arrays, Layout, TensorSpec
from ..contract.state import CodecState
from ..contract.vector import Vector, gather, in_layout_order, scatter, slices
from ..quantisers.select import count_kept, require_density, top_k_mask

_VALUE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}


@dataclass(frozen=True)
class TopK(Codec):
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
        require_exact_below(self.id, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        if lossy:
            positions, kept = self._largest(arrays, lossy)
            n = sum(spec.size for spec in lossy)
            sections.append(Section("POS", encode_positions(positions, n)))
            sections += self._pack(positions, kept, lossy)
        return sections, {}

    def _pack(
        self, positions: Positions, kept: Vector, lossy: Sequence[TensorSpec]
    ) -> list[Section]:
        """Return the sections of the kept values."""
        exponents = np.zeros(len(lossy), np.int8)
        owners = _owners(positions, lossy)
        if self.values == "float16":
            exponents = half_exponents(kept, owners, len(lossy))
        if not exponents.any():
            return [Section("VAL", kept.astype(_VALUE_DTYPES[self.values]).tobytes())]
        return [
            Section("EXP", exponents.tobytes(), itemsize=1),
            Section("VALX", to_half(kept, exponents[owners]).tobytes()),
        ]

    def _largest(
        self, arrays: Arrays, lossy: Sequence[TensorSpec]
    ) -> tuple[Positions, Vector]:
        """Return where in all tensors the kept elements are, and what they are."""
        vector = gather(arrays, lossy)
        mask = np.empty(len(vector), bool)
        for part in slices(lossy):
            x = vector[part]
            mask[part] = top_k_mask(x, count_kept(len(x), self.density)) & (x != 0)
        positions = np.flatnonzero(mask)
        return positions, vector[positions]

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if lossy:
            vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
            packed = reader.section("POS", max_size=max_positions_bytes(len(vector)))
            positions = decode_positions(packed, len(vector))
            vector[positions] = self._unpack(reader, positions, lossy)
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}

    def _unpack(
        self, reader: FrameReader, positions: Positions, lossy: Sequence[TensorSpec]
    ) -> Vector:
        dtype = _VALUE_DTYPES[self.values]
        size = len(positions) * dtype.itemsize
        if self.values != "float16" or "VALX" not in reader:
            return np.frombuffer(reader.section("VAL", size=size), dtype).astype("f4")
        exponents = np.frombuffer(reader.section("EXP", size=len(lossy)), np.int8)
        values = np.frombuffer(reader.section("VALX", size=size), dtype)
        return from_half(values, exponents[_owners(positions, lossy)])


def _owners(positions: Positions, lossy: Sequence[TensorSpec]) -> Positions:
    """Return in which tensor each position lies."""
    ends = [part.stop for part in slices(lossy)]
    return np.searchsorted(ends, positions, side="right")
