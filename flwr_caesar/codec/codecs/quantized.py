"""`quantized`: the largest elements of each tensor at a few bits each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.bitplanes import pack_planes, planes_size, unpack_planes
from ..coding.positions import encode_positions, read_positions
from ..coding.values import read_magnitudes
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.select import count_kept, require_density, top_k_mask
from ..quantisers.uniform import (
    MAX_BITS,
    MIN_BITS,
    allocate_bits,
    dequantize_power_of_two,
    dequantize_uniform,
    mean_square,
    quantize_power_of_two,
    quantize_uniform,
    require_mean_bits,
    top_level,
)

_LEVELS = {
    "uniform": (quantize_uniform, dequantize_uniform),
    "power_of_two": (quantize_power_of_two, dequantize_power_of_two),
}


@frozen
class QuantizedCodec(LossyCodec):
    """Top-k sparsification with the kept values at 2 to 8 bits, per tensor.

    Of each lossy tensor of `n` elements the ``ceil(density * n)`` largest in magnitude
    are quantised. Tensors of larger variance get more bits (`allocate_bits`), `bits`
    on average. With a density of 1 it is plain quantisation. Biased: put it under
    `ErrorFeedback` for updates.

    Parameters
    ----------
    density : float
        Fraction of elements kept, in ``(0, 1]``.
    bits : float
        Mean bits of a kept value, from 2 to 8.
    levels : {"uniform", "power_of_two"}
        Spacing of the levels.
    exact_below : int
        Tensors with fewer elements are sent exactly.
    """

    density: float = 1.0
    bits: float = 8.0
    levels: str = "uniform"
    exact_below: int = 1024

    id: ClassVar[str] = "quantized"

    def __post_init__(self) -> None:
        require_density(self.id, self.density)
        require_mean_bits(self.id, self.bits)
        if self.levels not in _LEVELS:
            raise CodecError(
                f"quantized: levels must be one of {', '.join(_LEVELS)}, "
                f"not {self.levels!r}"
            )
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        kept = np.empty(len(vector), bool)
        sizes, variances = [], []
        for part in slices(lossy):
            x = vector[part]
            kept[part] = top_k_mask(x, count_kept(len(x), self.density))
            sizes.append(int(np.count_nonzero(kept[part])))
            variances.append(mean_square(x[kept[part]]))
        bits = allocate_bits(sizes, variances, int(self.bits * sum(sizes)))
        quantize, _ = _LEVELS[self.levels]
        scales, planes = [], []
        for part, b in zip(slices(lossy), bits, strict=True):
            quanta, scale = quantize(vector[part][kept[part]], b)
            codes = (quanta + np.int8(top_level(b))).view(np.uint8)
            scales.append(scale)
            planes.append(pack_planes(codes, b))
        where = encode_positions(np.flatnonzero(kept), len(vector))
        return [
            Section("POS", where),
            Section("BITS", bytes(bits)),
            Section("SCL", np.array(scales, "<f4").tobytes()),
            Section("CODE", b"".join(planes), itemsize=1),
        ], {}

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
        positions = read_positions(reader, "POS", len(vector))
        ends = np.searchsorted(positions, [part.stop for part in slices(lossy)])
        bits = reader.section("BITS", size=len(lossy))
        if not all(MIN_BITS <= b <= MAX_BITS for b in bits):
            raise CodecError("quantized: a tensor's bits are out of range")
        scales = read_magnitudes(reader.section("SCL", size=4 * len(lossy)))
        sizes = np.diff(ends, prepend=0).tolist()
        total = sum(map(planes_size, sizes, bits))
        data = reader.section("CODE", size=total)
        _, dequantize = _LEVELS[self.levels]
        begin = 0
        for end, k, b, scale in zip(ends, sizes, bits, scales, strict=True):
            codes = unpack_planes(data[begin : begin + planes_size(k, b)], k, b)
            quanta = codes.view(np.int8) - np.int8(top_level(b))
            with np.errstate(over="ignore"):  # infinite: the base class refuses it
                values = dequantize(quanta, scale, b)
            vector[positions[end - k : end]] = values
            begin += planes_size(k, b)
        return vector, {}
