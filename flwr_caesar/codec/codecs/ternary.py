"""`ternary`: sparse ternary compression, the largest elements as plus or minus one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.positions import encode_positions, read_positions
from ..coding.values import (
    mean_magnitude,
    pack_signs,
    read_magnitudes,
    signed,
    unpack_signs,
)
from ..contract.frame import FrameReader, Section
from ..contract.layout import TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.select import count_kept, require_density, top_k_mask


@frozen
class TernaryCodec(LossyCodec):
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
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        kept = vector != 0
        means = []
        for part in slices(lossy):
            x = vector[part]
            kept[part] &= top_k_mask(x, count_kept(len(x), self.density))
            means.append(mean_magnitude(x[kept[part]]))
        return [
            Section("POS", encode_positions(np.flatnonzero(kept), len(vector))),
            Section("MEAN", np.array(means, "<f4").tobytes()),
            Section("SIGN", pack_signs(vector[kept]), itemsize=1),
        ], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
        positions = read_positions(reader, "POS", len(vector))
        k = len(positions)
        means = read_magnitudes(reader.section("MEAN", size=4 * len(lossy)))
        negative = unpack_signs(reader.section("SIGN", size=(k + 7) // 8), k)
        ends = np.searchsorted(positions, [part.stop for part in slices(lossy)])
        each = np.repeat(means, np.diff(ends, prepend=0))
        vector[positions] = signed(negative, each)
        return vector, {}
