"""`qsgd`: stochastic rounding to a few levels of a norm, unbiased."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import blocks
from ..coding.lattice_block import decode_block, encode_block, max_block_bytes
from ..coding.levels import MAX_LIMIT, pack_levels, unpack_levels
from ..coding.values import read_magnitudes
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section
from ..contract.layout import Array, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..quantisers.randomness import MAX_SEED, content_seed, generator, round_at_random
from ..quantisers.select import count_kept, require_density, top_k_mask

MAX_LEVELS = 1 << 16
_NORMS = ("linf", "l2")


@frozen
class QSGDCodec(LossyCodec):
    """Unbiased stochastic quantisation, per tensor or per bucket of one.

    ``C(x)_j = norm * sign(x_j) * r_j / levels``, where ``r_j`` is
    ``levels * |x_j| / norm`` rounded down or up at random so that its mean is kept:
    over seeds, ``E[C(x)] == x``. The random numbers follow from `seed` and the data.
    FedComLoc's ``Q_r`` is ``levels = 2^r`` with the Euclidean norm. Its variance is at
    most ``min(n / levels^2, sqrt(n) / levels) * norm^2`` for `n` elements of one norm:
    few levels need small buckets.

    Parameters
    ----------
    levels : int
        Positive levels, 1 to 65,536.
    norm : {"linf", "l2"}
        Largest magnitude, or Euclidean norm, of the tensor or bucket.
    seed : int
        Varies the random numbers, in ``[0, 2^63)``.
    exact_below : int
        Tensors with fewer elements are sent exactly.
    density : float
        Fraction of elements kept, in ``(0, 1]``. Below 1, `C` is applied to the
        ``ceil(density * n)`` largest magnitudes of each tensor (of which `norm` is
        then the norm), and the others become 0: unbiased for what is kept only.
    bucket : int
        Consecutive elements of a tensor that share a norm, which costs 32 bits; the
        last bucket of a tensor may be smaller. 0: one norm for the whole tensor.

    References
    ----------
    Alistarh et al. (2017), arXiv:1610.02132. Yi et al. (2024), arXiv:2403.09904.
    """

    levels: int = 7
    norm: str = "linf"
    seed: int = 0
    exact_below: int = 1024
    density: float = 1.0
    bucket: int = 0

    id: ClassVar[str] = "qsgd"
    later: ClassVar[frozenset[str]] = frozenset({"density", "bucket"})

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
        if not (isinstance(self.bucket, int) and self.bucket >= 0):
            raise CodecError(
                f"qsgd: bucket must be an integer of at least 0, not {self.bucket}"
            )
        require_density(self.id, self.density)
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        if self.density < 1:
            for part in slices(lossy):
                x = vector[part]
                x[~top_k_mask(x, count_kept(len(x), self.density))] = 0
        source = generator(content_seed(vector, self.seed))
        norms = np.concatenate([self._norms(vector[p]) for p in slices(lossy)])
        quanta = np.empty(len(vector), np.int32)
        for chunk, of in self._buckets(lossy):
            quanta[chunk] = self._quantise(vector[chunk], norms[of], source)
        sections = [Section("NORM", norms.astype("<f4").tobytes())]
        if self.levels <= MAX_LIMIT:
            sections += pack_levels(quanta.astype(np.int16), lossy, self.levels)
        else:
            block = encode_block(quanta, lossy)
            sections.append(Section("BLK", block, itemsize=1))
        return sections, {}

    def _norms(self, x: Vector) -> Vector:
        """Return the norm of each bucket of a tensor."""
        run = self.bucket or len(x)
        rows = np.pad(x, (0, -len(x) % run)).reshape(-1, run)
        if self.norm == "linf":
            largest: Vector = np.abs(rows).max(axis=1)
            return largest
        with np.errstate(over="ignore"):
            squares = np.square(rows, dtype=np.float64).sum(axis=1)
            norms: Vector = np.sqrt(squares).astype(np.float32)
        if not np.isfinite(norms).all():
            raise CodecError("qsgd: an L2 norm exceeds the range of float32")
        return norms

    def _buckets(self, lossy: Sequence[TensorSpec]) -> Iterator[tuple[slice, Array]]:
        """Yield pieces of the lossy vector and, for each element, its bucket."""
        before = 0
        for part in slices(lossy):
            n = part.stop - part.start
            run = self.bucket or n
            for chunk in blocks(n):
                of = before + np.arange(chunk.start, chunk.stop) // run
                yield slice(part.start + chunk.start, part.start + chunk.stop), of
            before += -(-n // run)

    def _quantise(
        self, x: Vector, norms: Vector, source: np.random.Generator
    ) -> Vector:
        if not norms.any():
            return np.zeros_like(x)
        levels = np.float32(self.levels)
        scaled = np.zeros_like(x)
        np.divide(np.abs(x), norms, out=scaled, where=norms > 0)
        scaled *= levels
        rounded = round_at_random(scaled, source)
        return np.copysign(np.minimum(rounded, levels), x)

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        count = sum(-(-t.size // (self.bucket or t.size)) for t in lossy)
        norms = read_magnitudes(reader.section("NORM", size=4 * count))
        vector = self._levels(reader, lossy).astype(np.float32)
        vector /= np.float32(self.levels)
        for chunk, of in self._buckets(lossy):
            vector[chunk] *= norms[of]
        return vector, {}

    def _levels(self, reader: FrameReader, lossy: Sequence[TensorSpec]) -> Array:
        if self.levels <= MAX_LIMIT:
            return unpack_levels(reader, lossy, self.levels)
        data = reader.section("BLK", max_size=max_block_bytes(lossy))
        found = decode_block(data, lossy)
        if max(int(found.max()), -int(found.min())) > self.levels:
            raise CodecError(f"qsgd: a level is larger than {self.levels}")
        return found
