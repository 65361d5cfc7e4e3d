"""One tensor of the `correlation` codec: prediction, largest elements, choice of mode.

A tensor is sent as

    rho * previous reconstruction  +  left factor @ right factor  +  largest elements

of which the first two are optional: `direct` has neither, `temporal` the first,
`low_rank` the second, `temporal_low_rank` both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.positions import Positions
from ..contract.vector import Vector
from ..quantisers.select import top_k
from ..quantisers.uniform import (
    Levels,
    dequantize_uniform,
    mean_square,
    quantize_uniform,
)
from .low_rank import (
    Factors,
    add_product,
    factor_bits,
    factorise,
    largest_rank,
    matrix_shape,
)
from .predict import fit_gain

MODES = ("direct", "temporal", "low_rank", "temporal_low_rank")


@frozen
class Budget:
    """What a tensor may take.

    Parameters
    ----------
    kept : int
        Elements that the direct mode sends.
    bits : int
        Bits of the level of each.
    freed : float
        Bits that each element fewer frees: of its level and of its position.
    """

    kept: int
    bits: int
    freed: float


@frozen
class Memory:
    """What both sides remember of a tensor.

    Parameters
    ----------
    previous : ndarray of float32, shape (n,)
        The last reconstruction.
    right : ndarray of float32, optional, shape (rank, columns)
        The right factor last sent.
    """

    previous: Vector
    right: Vector | None


@frozen
class Coded:
    """A tensor as it is sent.

    Parameters
    ----------
    rho : float32
        Gain of the previous reconstruction; 0 for none.
    factors : Factors or None
        The low-rank part.
    positions : ndarray of int64
        Where the elements are that are sent themselves, increasing.
    levels : ndarray of int8
        Their levels of `bits` bits, each `step`; added to the other parts.
    """

    rho: np.float32
    factors: Factors | None
    positions: Positions
    levels: Levels
    bits: int
    step: np.float32


def mode_name(rho: float, rank: int) -> str:
    """Return which of `MODES` has this gain and rank."""
    return MODES[(rho != 0) + 2 * (rank > 0)]


def reconstruct(coded: Coded, size: int, memory: Memory | None) -> Vector:
    """Rebuild a tensor, flat; each operation rounded to float32, in a fixed order."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        x = _predict(coded.rho, coded.factors, size, memory)
        x[coded.positions] += dequantize_uniform(coded.levels, coded.step, coded.bits)
    return x


def _predict(
    rho: np.float32, factors: Factors | None, size: int, memory: Memory | None
) -> Vector:
    if rho and memory is not None:
        x = memory.previous * rho
    else:
        x = np.zeros(size, np.float32)
    if factors is not None:
        add_product(x.reshape(factors.left.shape[1], -1), factors)
    return x


def encode(
    x: Vector, shape: tuple[int, ...], memory: Memory | None, budget: Budget
) -> Coded:
    """Send a tensor in the mode of the least squared error within the budget.

    The direct mode spends the budget on the ``kept`` largest elements. The others give
    up as many of these as pay for their factors and take the largest of what the
    prediction leaves. `rho` is the least-squares gain, of either sign. A low-rank part
    has the largest rank that the budget pays, or half of it. Of equal modes the first
    in the order above.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        Finite values, flat.
    shape : tuple of int
        Shape of the tensor.
    memory : Memory or None
        None in the first round, and where nothing is remembered.
    budget : Budget
        What it may take.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        error, best = _spend(
            x, np.zeros_like(x), np.float32(0), None, budget.kept, budget
        )
        for rho, factors, kept in _predictions(x, shape, memory, budget):
            prediction = _predict(rho, factors, len(x), memory)
            found, coded = _spend(x, prediction, rho, factors, kept, budget)
            if found < error:
                error, best = found, coded
    return best


def _predictions(
    x: Vector, shape: tuple[int, ...], memory: Memory | None, budget: Budget
) -> Iterator[tuple[np.float32, Factors | None, int]]:
    """Yield gain, factors and kept elements of every mode but the direct one."""
    gains = [np.float32(0)]
    if memory is not None and (rho := fit_gain(x, memory.previous)):
        gains.append(rho)
        yield rho, None, budget.kept
    for gain in gains:
        rest = x - _predict(gain, None, len(x), memory)
        for factors, kept in _low_rank(rest, shape, memory, budget):
            yield gain, factors, kept


def _low_rank(
    x: Vector, shape: tuple[int, ...], memory: Memory | None, budget: Budget
) -> Iterator[tuple[Factors, int]]:
    sides = matrix_shape(shape)
    if sides is None or not np.isfinite(x).all():
        return

    def left_after(rank: int) -> int:
        return budget.kept - math.ceil(factor_bits(rank, *sides) / budget.freed)

    rank = largest_rank(*sides)
    while rank and left_after(rank) < 0:
        rank -= 1
    if not rank:
        return
    warm = memory.right if memory is not None else None
    factors = factorise(x.reshape(sides), rank, warm)
    if factors is not None:
        for part in sorted({rank, (rank + 1) // 2}, reverse=True):
            yield factors.strongest(part), left_after(part)


def _spend(
    x: Vector,
    prediction: Vector,
    rho: np.float32,
    factors: Factors | None,
    kept: int,
    budget: Budget,
) -> tuple[float, Coded]:
    """Send the largest elements that a prediction leaves; return the error, too."""
    rest = x - prediction
    at = top_k(rest, kept)
    levels, step = quantize_uniform(rest[at], budget.bits)
    at, levels = at[levels != 0], levels[levels != 0]
    values = dequantize_uniform(levels, step, budget.bits)
    coded = Coded(rho, factors, at, levels, budget.bits, step)
    if not np.isfinite(prediction[at] + values).all():
        return math.inf, coded
    sent = values.astype(np.float64)
    gain = float((sent * (2 * rest[at] - sent)).sum())
    return mean_square(rest) * len(x) - gain, coded
