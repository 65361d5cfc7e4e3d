"""`signs`: one bit an element and one magnitude a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

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


@frozen
class SignsCodec(LossyCodec):
    """Scaled sign, per tensor: ``C(x) = mean(|x|) * sign(x)`` with ``sign(0) = +1``.

    A contraction, ``||x - C(x)||^2 = ||x||^2 - ||x||_1^2 / n``: 0.363 of the energy is
    lost on Gaussian values. Biased: put it under `ErrorFeedback`.

    Parameters
    ----------
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Karimireddy et al. (2019), arXiv:1901.09847; Bernstein et al. (2018),
    arXiv:1802.04434.
    """

    exact_below: int = 1024

    id: ClassVar[str] = "signs"

    def __post_init__(self) -> None:
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        means = [mean_magnitude(vector[part]) for part in slices(lossy)]
        return [
            Section("MEAN", np.array(means, "<f4").tobytes()),
            Section("SIGN", pack_signs(vector), itemsize=1),
        ], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        n = sum(spec.size for spec in lossy)
        means = read_magnitudes(reader.section("MEAN", size=4 * len(lossy)))
        negative = unpack_signs(reader.section("SIGN", size=(n + 7) // 8), n)
        vector = np.empty(n, np.float32)
        for part, mean in zip(slices(lossy), means, strict=True):
            vector[part] = signed(negative[part], mean)
        return vector, {}
