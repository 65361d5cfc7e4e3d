"""Sums of outer products that a frame tells: what the rows of a residual share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..coding.blocks import Index3, Shape3, along, long_axis
from ..coding.contexts import context_bits, fit_scales, scale_classes
from ..coding.integers import Integers
from ..contract.layout import Array
from ..contract.vector import Vector

MAX_RANK = 32
"""The most products of a tensor."""

MOST_DOUBLINGS = 15
"""The largest power of two that a product may be multiplied by."""

_EXACT = 1 << 24
_MIN_SIZE, _MIN_SIDE = 1 << 13, 8
_SAMPLE = 1 << 15
_SPARE = 4
_MOST_ENERGY = 2.0**80
_NOISE = 12.0  # a uniform error of one step has a twelfth of the step's square
_GAUSSIAN = 2 * math.pi * math.e
_BITS_PER_PRODUCT = 64


@dataclass(frozen=True)
class Products:
    """A matrix ``unit * sum(2^d_r * outer(left_r, right_r))`` of integers.

    The sum is of integers below 2^24 in whatever order it is taken, so that a float32
    matrix product has it exactly, and the unit rounds each element once: encoder and
    decoder agree to the bit on any machine.

    Parameters
    ----------
    unit : float32
        Positive.
    doublings : ndarray of uint8, shape (rank,)
        `d`, at most 15.
    left, right : ndarray of int32, shape (rank, rows) and (rank, columns)
        The integers.
    """

    unit: np.float32
    doublings: Array
    left: Integers
    right: Integers

    @property
    def is_exact(self) -> bool:
        """Whether no sum can reach 2^24."""
        largest = [
            np.abs(side.astype(np.float64)).max(axis=1)
            for side in (self.left, self.right)
        ]
        return float((largest[0] * largest[1] * 2.0**self.doublings).sum()) < _EXACT

    @cached_property
    def _factors(self) -> tuple[Vector, Vector]:
        rows = np.ldexp(self.left.astype(np.float32), self.doublings[:, np.newaxis])
        return np.ascontiguousarray(rows.T), self.right.astype(np.float32)

    def part(self, at: Index3, shape: Shape3) -> Vector:
        """Return some elements of the matrix as those of a tensor.

        Parameters
        ----------
        at : tuple of slices
            Which.
        shape : tuple of int
            Outputs, inputs and positions of the tensor: rows, and columns.
        """
        left, right = self._factors
        columns = right.reshape(-1, shape[1], shape[2])[:, at[1], at[2]]
        rows = left[at[0]]
        found = rows @ columns.reshape(len(columns), -1)
        found *= self.unit
        return found.reshape(len(rows), *columns.shape[1:])


def has_products(shape: Shape3, rank: int) -> bool:
    """Return whether a tensor is tried with products: a matrix that is not small."""
    rows, columns = shape[0], shape[1] * shape[2]
    large = rows * columns >= _MIN_SIZE and min(rows, columns) >= _MIN_SIDE
    return rank > 0 and large


def fit_products(residual: Vector, step: np.float32, rank: int) -> Products | None:
    """Return the products that make a residual's integers the shortest, if any do.

    Its strongest singular directions: as many as take fewer bits than they save by the
    logarithm of what is left of the energy, or a half or a quarter of them; each of
    them as finely rounded as pays. Which of these, and whether any, is decided by the
    bits of at least 32,768 elements.

    Parameters
    ----------
    residual : ndarray of float32, shape (outputs, inputs, positions)
        What a predictor leaves.
    step : float32
        The quantiser's.
    rank : int
        The most products, from 1 to 32.
    """
    shape = residual.shape[0], residual.shape[1], residual.shape[2]
    matrix = residual.reshape(shape[0], -1) / step
    energy = float(np.square(matrix, dtype=np.float64).sum())
    if not 0 < energy < _MOST_ENERGY:
        return None
    try:
        left, values, right = _strongest(matrix, rank)
    except np.linalg.LinAlgError:
        return None
    del matrix
    deviations, most = _worth(values, energy, left.shape[1], right.shape[1])
    axis = long_axis(shape)
    sample = along(axis, slice(None, None, max(residual.size // _SAMPLE, 1)))
    part = residual[sample]
    scale = residual.size / part.size
    best, least = None, scale * _bits(part, step)
    for count in sorted({most, most // 2, most // 4} - {0}):
        own = left[:count], values[:count], right[:count]
        found = _rounded(*own, float(deviations[count]), step)
        if found is None:
            continue
        bits = scale * _bits(part - found.part(sample, shape), step) + _bits_of(found)
        if bits < least:
            best, least = found, bits
    return best


def _strongest(matrix: Vector, rank: int) -> tuple[Vector, Vector, Vector]:
    """Return the largest singular values, and their vectors as rows.

    Of a subspace that two power iterations from fixed noise find.

    References
    ----------
    Halko, Martinsson and Tropp (2011), arXiv:0909.4061, algorithm 4.4.
    """
    kept = min(rank + _SPARE, *matrix.shape)
    noise = np.random.default_rng(0).standard_normal((matrix.shape[1], kept))
    basis, _ = np.linalg.qr(matrix @ noise.astype(np.float32))
    for _ in range(2):
        back, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ back)
    rotation, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    left = (basis @ rotation).T
    count = min(rank, int((values > 0).sum()))
    return left[:count], values[:count].astype(np.float64), right[:count]


def _worth(values: Array, energy: float, rows: int, columns: int) -> tuple[Array, int]:
    """Return the noise beside so many products, and how many save bits at the most.

    Parameters
    ----------
    values : ndarray of float64, shape (rank,)
        Singular values, in steps.
    energy : float
        Of the matrix, in squared steps.

    Returns
    -------
    deviations : ndarray of float64, shape (rank + 1,)
        Of what is left after none, one and more products, in steps, rounding included.
    count : int
        With how many the bits are the fewest, were all elements alike.
    """
    size = rows * columns
    left_over = energy - np.concatenate([[0.0], np.cumsum(np.square(values))])
    each = np.maximum(left_over / size, 0.0)
    bits = size / 2 * np.log2(1 + _NOISE * each)
    deviations = np.sqrt(np.maximum(each, 1 / _NOISE))
    for count in range(1, len(bits)):
        spread = values[:count] / (_NOISE * deviations[count] ** 2)
        for side in (rows, columns):
            squares = values[:count] * spread / side
            bits[count] += (side / 2 * np.log2(1 + _GAUSSIAN * squares)).sum()
        bits[count] += _BITS_PER_PRODUCT * count
    return deviations, int(bits.argmin())


def _rounded(
    left: Vector, values: Array, right: Vector, deviation: float, step: np.float32
) -> Products | None:
    """Return products of integers; `None` if those would be too large."""
    unit = _NOISE * deviation**2 / values[0]
    doublings = np.rint(np.log2(values[0] / values)).clip(0, MOST_DOUBLINGS)
    scale = np.sqrt(values / (unit * 2.0**doublings))[:, np.newaxis]
    sides = [np.rint(side * scale).astype(np.int32) for side in (left, right)]
    size = np.float32(unit * float(step))
    if not 0 < size < math.inf:
        return None
    found = Products(size, doublings.astype(np.uint8), *sides)
    return found if found.is_exact else None


def _bits(residual: Vector, step: np.float32) -> float:
    shape = residual.shape[0], residual.shape[1], residual.shape[2]
    indices = np.rint(residual / step).astype(np.int32)
    return context_bits(indices, scale_classes(fit_scales(residual, step), shape))


def _bits_of(products: Products) -> float:
    bits = float(_BITS_PER_PRODUCT * len(products.doublings))
    for side in (products.left, products.right):
        squares = np.square(side.astype(np.float64)).mean(axis=1)
        bits += float(side.shape[1] / 2 * np.log2(1 + _GAUSSIAN * squares).sum())
    return bits
