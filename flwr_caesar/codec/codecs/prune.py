"""`prune`: the smallest weights of a whole model to zero, the rest whole or in bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.lattice_block import decode_block, encode_block, max_block_bytes
from ..coding.positions import encode_positions, read_positions
from ..coding.values import read_magnitudes
from ..contract.errors import CodecError
from ..contract.exact import split_exact
from ..contract.frame import FrameReader, Section
from ..contract.layout import Layout, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.select import Mask, prune_mask
from ..quantisers.tensor_steps import offsets, root_mean_square
from ..quantisers.weights import (
    FLOAT_BITS,
    WEIGHT_BITS,
    WEIGHT_LEVELS,
    dequantize_weights,
    largest_level,
    quantize_weights,
)


@frozen
class PruneCodec(LossyCodec):
    """Unstructured one-shot magnitude pruning of a whole message.

    Over all prunable tensors together, the ``floor(prune_rate * n)`` smallest
    magnitudes become zero and the survivors stay as they are (float64 is rounded to
    float32). On the wire: a mask, then the survivors, byte-shuffled and compressed
    with zstd. About 14 bits a parameter at a rate of 0.5.

    With `bits` from 1 to 8 the survivors of each tensor are on the levels of
    `weights`, the same on which quantisation-aware training evaluates a model, and
    weights that are on these levels come back bit for bit. The levels are
    entropy-coded; of the weights of a small network at 4 bits about 2.7 bits are left.

    Parameters
    ----------
    prune_rate : float
        Fraction of elements pruned, in ``[0, 1]``.
    exclude_1d : bool
        Send tensors of fewer than two axes (biases, norms) exactly. The paper's code
        prunes them too.
    exact_below : int
        Tensors with fewer elements are sent exactly.
    bits : int
        Bits of a survivor: 32 for float32, or 1 to 8.
    levels : {"uniform", "power_of_two"}
        Spacing of the levels from 2 to 8 bits.
    relative : bool
        Compare a tensor far smaller than the others relative to its scale
        (`tensor_steps.offsets`): no layer is pruned away because it is small.

    References
    ----------
    Grativol Ribeiro et al. (2023), arXiv:2310.14693. Its code prunes below a
    threshold, which on ties prunes fewer than the rate says; this prunes the rate.
    """

    prune_rate: float = 0.5
    exclude_1d: bool = True
    exact_below: int = 0
    bits: int = FLOAT_BITS
    levels: str = "uniform"
    relative: bool = False

    id: ClassVar[str] = "prune"
    later: ClassVar[frozenset[str]] = frozenset({"bits", "levels", "relative"})

    def __post_init__(self) -> None:
        if not 0 <= self.prune_rate <= 1:
            raise CodecError(
                f"prune: prune_rate must be in [0, 1], not {self.prune_rate}"
            )
        for name in ("exclude_1d", "relative"):
            if not isinstance(value := getattr(self, name), bool):
                raise CodecError(f"prune: {name} must be true or false, not {value!r}")
        super().__post_init__()
        if self.bits not in (*WEIGHT_BITS, FLOAT_BITS):
            raise CodecError(
                f"prune: bits must be from 1 to {WEIGHT_BITS[-1]}, or {FLOAT_BITS}, "
                f"not {self.bits}"
            )
        if self.levels not in WEIGHT_LEVELS:
            raise CodecError(
                f"prune: levels must be one of {', '.join(WEIGHT_LEVELS)}, "
                f"not {self.levels!r}"
            )

    def _split(self, layout: Layout) -> tuple[list[TensorSpec], list[TensorSpec]]:
        return split_exact(layout, self.exact_below, exclude_1d=self.exclude_1d)

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        compared = _on_one_scale(vector, lossy) if self.relative else vector
        mask = prune_mask(compared, self.prune_rate)
        if self.bits < FLOAT_BITS:
            return self._pack(vector, mask, lossy), {}
        positions = encode_positions(np.flatnonzero(mask), len(vector))
        return [
            Section("POS", positions),
            Section("VAL", vector[mask].tobytes(), itemsize=4),
        ], {}

    def _pack(
        self, vector: Vector, mask: Mask, lossy: Sequence[TensorSpec]
    ) -> list[Section]:
        found = np.zeros(len(vector), np.int32)
        scales = []
        for part in slices(lossy):
            kept = mask[part]
            quanta, scale = quantize_weights(vector[part][kept], self.bits, self.levels)
            found[part][kept] = quanta
            scales.append(scale)
        return [
            Section("SCL", np.array(scales, "<f4").tobytes()),
            Section("BLK", encode_block(found, lossy), itemsize=1),
        ]

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        if self.bits < FLOAT_BITS:
            vector = self._unpack(reader, lossy)
        else:
            vector = np.zeros(sum(spec.size for spec in lossy), np.float32)
            positions = read_positions(reader, "POS", len(vector))
            data = reader.section("VAL", size=4 * len(positions))
            vector[positions] = np.frombuffer(data, "<f4")
        return vector, {}

    def _unpack(self, reader: FrameReader, lossy: Sequence[TensorSpec]) -> Vector:
        scales = read_magnitudes(reader.section("SCL", size=4 * len(lossy)))
        data = reader.section("BLK", max_size=max_block_bytes(lossy))
        found = decode_block(data, lossy)
        largest = largest_level(self.bits)
        if max(int(found.max()), -int(found.min())) > largest:
            raise CodecError(f"prune: a level is larger than {largest}")
        vector = np.empty(len(found), np.float32)
        for part, scale in zip(slices(lossy), scales, strict=True):
            vector[part] = dequantize_weights(
                found[part], scale, self.bits, self.levels
            )
        return vector


def _on_one_scale(vector: Vector, specs: Sequence[TensorSpec]) -> Vector:
    """Return the vector with tensors of far smaller or larger scale brought to one."""
    parts = slices(specs)
    scales = [root_mean_square(vector[part]) for part in parts]
    active = [i for i, scale in enumerate(scales) if scale]
    if not active:
        return vector
    _, off = offsets([scales[i] for i in active], [specs[i].size for i in active])
    if not any(off):
        return vector
    vector = vector.copy()
    for i, own in zip(active, off, strict=True):
        vector[parts[i]] = np.ldexp(vector[parts[i]], -own)
    return vector
