"""`ternary`: sparse ternary compression, the largest elements as plus or minus one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..coding.positions import decode_positions, encode_positions, max_positions_bytes
from ..coding.values import (
    mean_magnitude,
    pack_signs,
    read_magnitudes,
    signed,
    unpack_signs,
)
from ..contract.base import Codec
from ..contract.exact import pack_exact, require_exact_below, split_exact, unpack_exact
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, Arrays, Layout
from ..contract.state import CodecState
from ..contract.vector import gather, in_layout_order, scatter, slices
from ..quantisers.select import count_kept, require_density, top_k_mask


@dataclass(frozen=True)
class Ternary(Codec):
    """Sparse ternary compression (STC), per tensor.

    Of each lossy tensor of `n` elements the ``ceil(density * n)`` largest in magnitude
    become ``mu * sign(x)``, where `mu` is the mean magnitude of the elements **kept**;
    the rest become zero. Zeros are never kept. Biased: put it under `ErrorFeedback`.
    About 0.09 bits an element at a density of 1 %.

    Parameters
    ----------
    density : float
        Fraction of elements kept, in ``(0, 1]``.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Sattler et al. (2019), arXiv:1903.02891, Algorithm 1.
    """

    density: float = 0.01
    exact_below: int = 1024

    id: ClassVar[str] = "ternary"

    def __post_init__(self) -> None:
        require_density(self.id, self.density)
        require_exact_below(self.id, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        if lossy:
            vector = gather(arrays, lossy)
            kept = vector != 0
            means = []
            for part in slices(lossy):
                x = vector[part]
                kept[part] &= top_k_mask(x, count_kept(len(x), self.density))
                means.append(mean_magnitude(x[kept[part]]))
            sections += [
                Section("POS", encode_positions(np.flatnonzero(kept), len(vector))),
                Section("MEAN", np.array(means, "<f4").tobytes()),
                Section("SIGN", pack_signs(vector[kept]), itemsize=1),
            ]
        return sections, {}

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if lossy:
            vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
            packed = reader.section("POS", max_size=max_positions_bytes(len(vector)))
            positions = decode_positions(packed, len(vector))
            k = len(positions)
            means = read_magnitudes(reader.section("MEAN", size=4 * len(lossy)))
            negative = unpack_signs(reader.section("SIGN", size=(k + 7) // 8), k)
            ends = np.searchsorted(positions, [part.stop for part in slices(lossy)])
            each = np.repeat(means, np.diff(ends, prepend=0))
            vector[positions] = signed(negative, each)
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}
