"""`topk`: the largest elements of each tensor, the rest zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import Codec
from .errors import CodecError
from .exact import pack_exact, require_exact_below, split_exact, unpack_exact
from .frame import FrameReader, Section
from .layout import Array, Arrays, Layout, TensorSpec
from .positions import (
    Positions,
    decode_positions,
    encode_positions,
    max_positions_bytes,
)
from .select import count_kept, require_density, top_k_mask
from .state import CodecState
from .vector import Vector, gather, in_layout_order, scatter, slices

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
        Precision of the kept values. Magnitudes above 65,504 are refused in float16.
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
            with np.errstate(over="ignore"):
                values = kept.astype(_VALUE_DTYPES[self.values])
            if not np.isfinite(values).all():
                raise CodecError("topk: an element exceeds the range of float16")
            n = sum(spec.size for spec in lossy)
            sections += [
                Section("POS", encode_positions(positions, n)),
                Section("VAL", values.tobytes()),
            ]
        return sections, {}

    def _largest(
        self, arrays: Arrays, lossy: Sequence[TensorSpec]
    ) -> tuple[Positions, Vector]:
        """Return where in all tensors the kept elements are, and what they are."""
        vector = gather(arrays, lossy)
        mask = np.empty(len(vector), bool)
        for part in slices(lossy):
            x = vector[part]
            mask[part] = top_k_mask(x, count_kept(len(x), self.density))
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
            dtype = _VALUE_DTYPES[self.values]
            data = reader.section("VAL", size=len(positions) * dtype.itemsize)
            vector[positions] = np.frombuffer(data, dtype)
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}
