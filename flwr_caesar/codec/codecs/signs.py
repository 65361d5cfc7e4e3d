"""`signs`: one bit an element and one magnitude a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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


@dataclass(frozen=True)
class Signs(Codec):
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
        require_exact_below(self.id, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        if lossy:
            vector = gather(arrays, lossy)
            means = [mean_magnitude(vector[part]) for part in slices(lossy)]
            sections += [
                Section("MEAN", np.array(means, "<f4").tobytes()),
                Section("SIGN", pack_signs(vector), itemsize=1),
            ]
        return sections, {}

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if lossy:
            n = sum(spec.size for spec in lossy)
            means = read_magnitudes(reader.section("MEAN", size=4 * len(lossy)))
            negative = unpack_signs(reader.section("SIGN", size=(n + 7) // 8), n)
            vector = np.empty(n, np.float32)
            for part, mean in zip(slices(lossy), means, strict=True):
                vector[part] = signed(negative[part], mean)
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}
