"""`qsgd`: stochastic rounding to a few levels of a tensor's norm, unbiased."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Codec
from .errors import CodecError
from .exact import pack_exact, require_exact_below, split_exact, unpack_exact
from .frame import FrameReader, Section
from .lattice_block import decode_block, encode_block, max_block_bytes
from .layout import Array, Arrays, Layout, TensorSpec
from .levels import MAX_LIMIT, pack_levels, unpack_levels
from .randomness import MAX_SEED, content_seed, generator, round_at_random
from .select import count_kept, top_k_mask
from .state import CodecState
from .values import read_magnitudes
from .vector import Vector, gather, in_layout_order, scatter, slices

MAX_LEVELS = 1 << 16
_NORMS = ("linf", "l2")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class QSGD(Codec):
    """Unbiased stochastic quantisation, per tensor.

    ``C(x)_j = norm * sign(x_j) * r_j / levels``, where ``r_j`` is
    ``levels * |x_j| / norm`` rounded down or up at random so that its mean is kept:
    over seeds, ``E[C(x)] == x``. The random numbers follow from `seed` and the data.
    FedComLoc's ``Q_r`` is ``levels = 2^r`` with the Euclidean norm.

    Parameters
    ----------
    levels : int
        Positive levels, 1 to 65,536.
    norm : {"linf", "l2"}
        Largest magnitude, or Euclidean norm, of the tensor.
    seed : int
        Varies the random numbers, in ``[0, 2^63)``.
    exact_below : int
        Tensors with fewer elements are sent exactly.
    density : float
        Fraction of elements kept, in ``(0, 1]``. Below 1, `C` is applied to the
        ``ceil(density * n)`` largest magnitudes of each tensor (of which `norm` is
        then the norm), and the others become 0: unbiased for what is kept only.

    References
    ----------
    Alistarh et al. (2017), arXiv:1610.02132. Yi et al. (2024), arXiv:2403.09904.
    """

    levels: int = 7
    norm: str = "linf"
    seed: int = 0
    exact_below: int = 1024
    density: float = 1.0

    id: ClassVar[str] = "qsgd"
    later: ClassVar[frozenset[str]] = frozenset({"density"})

    def __post_init__(self) -> None:
        if not (isinstance(self.levels, int) and 1 <= self.levels <= MAX_LEVELS):
            raise CodecError(
                f"qsgd: levels must be an integer from 1 to {MAX_LEVELS}, "
                f"not {self.levels}"
            )
        if self.norm not in _NORMS:
            raise CodecError(
                f"qsgd: norm must be one of {', '.join(_NORMS)}, not {self.norm!r}"
            )
        if not (isinstance(self.seed, int) and 0 <= self.seed <= MAX_SEED):
            raise CodecError(
                f"qsgd: seed must be an integer in [0, 2^63), not {self.seed}"
            )
        if not 0 < self.density <= 1:
            raise CodecError(f"qsgd: density must be in (0, 1], not {self.density}")
        require_exact_below(self.id, self.exact_below)

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        sections = pack_exact(arrays, exact)
        if lossy:
            vector = gather(arrays, lossy)
            if self.density < 1:
                for part in slices(lossy):
                    x = vector[part]
                    x[~top_k_mask(x, count_kept(len(x), self.density))] = 0
            source = generator(content_seed(vector, self.seed))
            norms = np.array([self._norm(vector[p]) for p in slices(lossy)], "<f4")
            quanta = np.empty(len(vector), np.int32)
            for part, norm in zip(slices(lossy), norms, strict=True):
                for start in range(part.start, part.stop, _CHUNK):
                    chunk = slice(start, min(start + _CHUNK, part.stop))
                    quanta[chunk] = self._quantise(vector[chunk], norm, source)
            sections.append(Section("NORM", norms.tobytes()))
            if self.levels <= MAX_LIMIT:
                sections += pack_levels(quanta.astype(np.int16), lossy, self.levels)
            else:
                block = encode_block(quanta, lossy)
                sections.append(Section("BLK", block, itemsize=1))
        return sections, {}

    def _norm(self, x: Vector) -> np.float32:
        if self.norm == "linf":
            return np.float32(np.abs(x).max())
        with np.errstate(over="ignore"):
            norm = np.float32(np.sqrt(np.square(x, dtype=np.float64).sum()))
        if not np.isfinite(norm):
            raise CodecError("qsgd: a tensor's L2 norm exceeds the range of float32")
        return norm

    def _quantise(
        self, x: Vector, norm: np.float32, source: np.random.Generator
    ) -> Vector:
        if norm == 0:
            return np.zeros_like(x)
        levels = np.float32(self.levels)
        scaled: Vector = np.multiply(np.abs(x) / norm, levels, dtype=np.float32)
        rounded = round_at_random(scaled, source)
        return np.copysign(np.minimum(rounded, levels), x)

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        exact, lossy = split_exact(layout, self.exact_below)
        arrays = unpack_exact(reader, exact)
        if lossy:
            norms = read_magnitudes(reader.section("NORM", size=4 * len(lossy)))
            vector = self._levels(reader, lossy).astype(np.float32)
            vector /= np.float32(self.levels)
            for part, norm in zip(slices(lossy), norms, strict=True):
                vector[part] *= norm
            arrays |= scatter(vector, lossy)
        return in_layout_order(layout, arrays), {}

    def _levels(self, reader: FrameReader, lossy: Sequence[TensorSpec]) -> Array:
        if self.levels <= MAX_LIMIT:
            return unpack_levels(reader, lossy, self.levels)
        data = reader.section("BLK", max_size=max_block_bytes(lossy))
        found = decode_block(data, lossy)
        if max(int(found.max()), -int(found.min())) > self.levels:
            raise CodecError(f"qsgd: a level is larger than {self.levels}")
        return found
