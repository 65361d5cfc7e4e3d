"""`correlation`: the largest elements of what earlier rounds and low rank leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.bitplanes import pack_planes, planes_size, unpack_planes
from ..coding.integers import decode_integers, encode_integers
from ..coding.positions import (
    POSITIONS_OVERHEAD,
    encode_positions,
    position_cost,
    read_positions,
)
from ..coding.values import read_magnitudes
from ..contract.errors import CodecError
from ..contract.frame import FrameReader, Section, same_config
from ..contract.layout import Array, Layout, TensorSpec
from ..contract.lossy import Decoded, Encoded, LossyCodec
from ..contract.state import CodecState
from ..contract.vector import Vector, slices
from ..predictors import correlated_tensor as tensor
from ..predictors.correlated_tensor import Budget, Coded, Memory, mode_name
from ..predictors.low_rank import FACTOR_BITS, Factors, largest_rank, matrix_shape
from ..predictors.narrowed import narrow, widen
from ..quantisers.select import count_kept, require_density, top_k
from ..quantisers.uniform import (
    MAX_BITS,
    MIN_BITS,
    Levels,
    allocate_bits,
    mean_square,
    require_mean_bits,
    top_level,
)

ALLOCATIONS = ("peak", "variance", "uniform")
_TENSOR = np.dtype([("rho", "<f2"), ("bits", "u1"), ("rank", "u1")])
_FACTORS = MAX_BITS - MIN_BITS + 1
_CONTEXTS = _FACTORS + 1
_PLANES, _INTEGERS = b"\0", b"\1"
_HALVINGS = 48


@frozen
class CorrelationCodec(LossyCodec):
    """Correlation-aware top-k sparsification of successive updates, per tensor.

    A tensor is sent as ``rho * previous reconstruction + low-rank part + largest
    elements``, where each of the first two is used if that leaves less error in the
    bytes that the largest ``ceil(density * n)`` elements alone would take: modes
    `direct`, `temporal`, `low_rank` and `temporal_low_rank` (`correlated_tensor`).
    Elements get 2 to 8 bits, more in tensors of larger values (`allocate_bits`), and
    are entropy-coded where that is shorter. Biased: put it under `ErrorFeedback`.

    Encoder and decoder remember the last reconstruction (16 bits an element) and the
    last right factor of each tensor.

    Parameters
    ----------
    density : float
        Fraction of elements that the direct mode sends, in ``(0, 1]``.
    bits : float
        Mean bits of the value of a sent element, from 2 to 8.
    budget : int
        Most bytes for the lossy tensors of a frame; the density is lowered until they
        hold. 0 for none. Exact tensors, header and tensor table come on top.
    memory : bool
        Whether rounds are related. Without it, frames are independent of each other
        and the modes are `direct` and `low_rank`.
    allocation : {"peak", "variance", "uniform"}
        What the bits of tensors follow: the square of the largest element, which the
        quantiser's step is proportional to; the mean square of the elements sent; or
        nothing, they are the same for all.
    exact_below : int
        Tensors with fewer elements are sent exactly.

    References
    ----------
    Edin, Kieffer, Johansson and Chen (2026), arXiv:2604.14751, for choosing by
    measured correlation; Vogels et al. (2019), arXiv:1905.13727, for the low-rank part.
    Their combination in one budget is ours.
    """

    density: float = 0.01
    bits: float = 6.0
    budget: int = 0
    memory: bool = True
    allocation: str = "peak"
    exact_below: int = 1024

    id: ClassVar[str] = "correlation"

    def __post_init__(self) -> None:
        require_density(self.id, self.density)
        require_mean_bits(self.id, self.bits)
        if self.budget < 0:
            raise CodecError(f"correlation: budget must be >= 0, not {self.budget}")
        if self.allocation not in ALLOCATIONS:
            raise CodecError(
                f"correlation: allocation must be one of {', '.join(ALLOCATIONS)}, "
                f"not {self.allocation!r}"
            )
        super().__post_init__()

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Encoded:
        table = np.zeros(len(lossy), _TENSOR)
        memory: dict[str, Array] = {}
        coded: list[Coded] = []
        budgets = self._budgets(vector, lossy)
        for i, (spec, part) in enumerate(zip(lossy, slices(lossy), strict=True)):
            held = self._held(state, spec)
            own = tensor.encode(vector[part], spec.shape, held, budgets[i])
            rank = own.factors.rank if own.factors else 0
            table[i] = own.rho, own.bits, rank
            coded.append(own)
            if self.memory:
                x = tensor.reconstruct(own, spec.size, held)
                _remember(memory, spec, x, own.factors, held)
        starts = [part.start for part in slices(lossy)]
        positions = [
            own.positions + start for own, start in zip(coded, starts, strict=True)
        ]
        steps = np.concatenate([_steps(own) for own in coded])
        return [
            Section("TENS", table.tobytes(), itemsize=1),
            Section("POS", encode_positions(np.concatenate(positions), len(vector))),
            Section("STEP", steps.astype("<f4").tobytes()),
            Section("VAL", _pack_levels(coded)),
        ], memory

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> Decoded:
        related = self.memory and state is not None and bool(state.arrays)
        table = _read_table(reader, lossy, related)
        vector = np.empty(sum(spec.size for spec in lossy), np.float32)
        memory: dict[str, Array] = {}
        coded = _read_coded(reader, lossy, table)
        for spec, part, own in zip(lossy, slices(lossy), coded, strict=True):
            held = self._held(state, spec)
            x = tensor.reconstruct(own, spec.size, held)
            vector[part] = x
            if self.memory:
                _remember(memory, spec, x, own.factors, held)
        return vector, memory

    def modes(self, frame: bytes, layout: Layout) -> dict[str, str]:
        """Return in which mode a frame sends each lossy tensor.

        Parameters
        ----------
        frame : bytes
            A frame of this codec.
        layout : Layout
            Its tensors, as in the state after it.

        Returns
        -------
        dict of str to str
            One of ``correlated_tensor.MODES`` for each lossy tensor by name.

        Raises
        ------
        CodecError
            If the frame is malformed or of another codec.
        """
        reader = FrameReader(frame)
        if not same_config(reader.info.config, self.config):
            raise CodecError(f"frame of another codec than {self.config}")
        _, lossy = self._split(layout)
        if not lossy:
            return {}
        table = _read_table(reader, lossy, self.memory)
        return {
            spec.name: mode_name(float(row["rho"]), int(row["rank"]))
            for spec, row in zip(lossy, table, strict=True)
        }

    def _held(self, state: CodecState | None, spec: TensorSpec) -> Memory | None:
        if not self.memory or state is None or not state.arrays:
            return None
        previous = widen(state.arrays[f"previous/{spec.name}"]).reshape(-1)
        return Memory(previous, state.arrays.get(f"right/{spec.name}"))

    def _budgets(self, vector: Vector, lossy: Sequence[TensorSpec]) -> list[Budget]:
        """Share out elements by the density, bits by the spread of values."""
        sizes = [spec.size for spec in lossy]
        density = self._affordable_density(sizes)
        kept = [count_kept(n, density) for n in sizes]
        bits = [int(self.bits)] * len(kept)
        if self.allocation != "uniform":
            spread = mean_square if self.allocation == "variance" else _square_of_peak
            spreads = [
                spread(vector[part][top_k(vector[part], k)])
                for part, k in zip(slices(lossy), kept, strict=True)
            ]
            bits = allocate_bits(kept, spreads, int(self.bits * sum(kept)))
        _, freed = position_cost(sum(kept), sum(sizes))
        return [Budget(k, b, freed + b) for k, b in zip(kept, bits, strict=True)]

    def _affordable_density(self, sizes: Sequence[int]) -> float:
        if not self.budget or self._most_bytes(sizes, self.density) <= self.budget:
            return self.density
        low, high = 0.0, self.density
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._most_bytes(sizes, middle) <= self.budget:
                low = middle
            else:
                high = middle
        if not low:
            raise CodecError(
                f"correlation: a budget of {self.budget} bytes is below the "
                f"{self._most_bytes(sizes, high)} that one element a tensor takes"
            )
        return low

    def _most_bytes(self, sizes: Sequence[int], density: float) -> int:
        """Bound the sections of lossy tensors, whatever they hold and their modes."""
        kept = sum(count_kept(n, density) for n in sizes)
        positions, _ = position_cost(kept, sum(sizes))
        levels = self.bits * kept + 7 * MAX_BITS * len(sizes)
        table = (_TENSOR.itemsize + 4) * len(sizes) + POSITIONS_OVERHEAD + 1
        return table + -(-positions // 8) + -(-int(levels) // 8)


def _square_of_peak(x: Vector) -> float:
    return float(np.abs(x).max()) ** 2


def _remember(
    memory: dict[str, Array],
    spec: TensorSpec,
    x: Vector,
    factors: Factors | None,
    held: Memory | None,
) -> None:
    memory[f"previous/{spec.name}"] = narrow(x).reshape(spec.shape)
    if factors is not None:
        memory[f"right/{spec.name}"] = factors.right_values()
    elif held is not None and held.right is not None:
        memory[f"right/{spec.name}"] = held.right


def _steps(coded: Coded) -> Vector:
    step = np.array([coded.step], np.float32)
    if coded.factors is None:
        return step
    return np.concatenate([step, coded.factors.left_steps, coded.factors.right_steps])


def _pack_levels(coded: Sequence[Coded]) -> bytes:
    """Pack the levels of all tensors, each one's factors first, the shorter way."""
    runs: list[tuple[Levels, int, int]] = []
    for own in coded:
        if own.factors is not None:
            factors = own.factors.left.reshape(-1), own.factors.right.reshape(-1)
            runs.append((np.concatenate(factors), FACTOR_BITS, _FACTORS))
        runs.append((own.levels, own.bits, own.bits - MIN_BITS))
    planes = _PLANES + b"".join(
        pack_planes((levels + np.int8(top_level(b))).view(np.uint8), b)
        for levels, b, _ in runs
    )
    levels = np.concatenate([run[0] for run in runs]).astype(np.int32)
    contexts = _contexts([(len(run[0]), run[2]) for run in runs])
    integers = _INTEGERS + encode_integers(levels, contexts, _CONTEXTS)
    return min(planes, integers, key=len)


def _contexts(runs: Sequence[tuple[int, int]]) -> Array:
    counts, contexts = zip(*runs, strict=True)
    return np.repeat(np.array(contexts, np.uint8), counts)


def _read_table(
    reader: FrameReader, lossy: Sequence[TensorSpec], related: bool
) -> Array:
    data = reader.section("TENS", size=len(lossy) * _TENSOR.itemsize)
    table = np.frombuffer(data, _TENSOR)
    if not ((table["bits"] >= MIN_BITS) & (table["bits"] <= MAX_BITS)).all():
        raise CodecError("correlation: a tensor's bits are out of range")
    if not np.isfinite(table["rho"]).all():
        raise CodecError("correlation: a tensor's gain is not finite")
    if table["rho"].any() and not related:
        raise CodecError("a tensor is predicted from a state that the frame lacks")
    for spec, rank in zip(lossy, table["rank"], strict=True):
        sides = matrix_shape(spec.shape)
        if rank > (largest_rank(*sides) if sides else 0):
            raise CodecError(f"correlation: tensor {spec.name!r} has rank {rank}")
    return table


def _read_coded(
    reader: FrameReader, lossy: Sequence[TensorSpec], table: Array
) -> list[Coded]:
    total = sum(spec.size for spec in lossy)
    positions = read_positions(reader, "POS", total)
    bounds = np.searchsorted(positions, [part.stop for part in slices(lossy)])
    ranks = table["rank"].astype(np.int64)
    data = reader.section("STEP", size=4 * int((1 + 2 * ranks).sum()))
    steps = read_magnitudes(data)
    sides = [matrix_shape(spec.shape) or (0, 0) for spec in lossy]
    runs: list[tuple[int, int, int]] = []
    for rank, side, bits, count in zip(
        ranks.tolist(),
        sides,
        table["bits"].tolist(),
        np.diff(bounds, prepend=0).tolist(),
        strict=True,
    ):
        if rank:
            runs.append((rank * sum(side), FACTOR_BITS, _FACTORS))
        runs.append((count, bits, bits - MIN_BITS))
    levels = iter(_unpack_levels(reader, runs))
    coded: list[Coded] = []
    begin = 0
    for row, rank, (rows, columns), part, end in zip(
        table, ranks.tolist(), sides, slices(lossy), bounds, strict=True
    ):
        factors = None
        if rank:
            both = next(levels)
            left, right = both[: rank * rows], both[rank * rows :]
            factors = Factors(
                left.reshape(rank, rows),
                right.reshape(rank, columns),
                steps[1 : 1 + rank],
                steps[1 + rank : 1 + 2 * rank],
            )
        at = positions[begin:end] - part.start
        coded.append(
            Coded(
                np.float32(row["rho"]),
                factors,
                at,
                next(levels),
                int(row["bits"]),
                steps[0],
            )
        )
        steps = steps[1 + 2 * rank :]
        begin = end
    return coded


def _unpack_levels(
    reader: FrameReader, runs: Sequence[tuple[int, int, int]]
) -> list[Levels]:
    total = sum(count for count, _, _ in runs)
    data = reader.section("VAL", max_size=8 * total + 8 * len(runs) + (1 << 20))
    found: list[Levels] = []
    if data[:1] == _PLANES:
        begin = 1
        for count, bits, _ in runs:
            end = begin + planes_size(count, bits)
            codes = unpack_planes(data[begin:end], count, bits)
            found.append(codes.view(np.int8) - np.int8(top_level(bits)))
            begin = end
        if begin != len(data):
            raise CodecError("correlation: levels have trailing bytes")
    elif data[:1] == _INTEGERS:
        contexts = _contexts([(count, context) for count, _, context in runs])
        levels = decode_integers(data[1:], contexts, _CONTEXTS)
        if len(levels) and int(np.abs(levels.astype(np.int64)).max()) >= 1 << 7:
            raise CodecError("correlation: a level is out of range")
        ends = np.cumsum([count for count, _, _ in runs])[:-1]
        found = np.split(levels.astype(np.int8), ends)
    else:
        raise CodecError("correlation: levels are in an unknown form")
    for own, (_, bits, _) in zip(found, runs, strict=True):
        top = top_level(bits)
        if len(own) and not -top <= int(own.min()) <= int(own.max()) <= top:
            raise CodecError("correlation: a level is out of range")
    return found
