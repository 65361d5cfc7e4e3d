"""Matrices as sums of a few outer products, by one warm-started power iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import BLOCK, blocks
from ..contract.layout import Array
from ..contract.vector import Vector
from ..quantisers.uniform import Levels, quantize_uniform

MIN_SIDE = 8
MAX_RANK = 32
FACTOR_BITS = 4
_COLD_ITERATIONS = 2
_TINY = np.float32(1e-30)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return the shape of a tensor seen as outputs by everything else.

    Returns
    -------
    tuple of int, optional
        Rows, the first axis, and columns, the product of the others; `None` for a
        tensor of fewer than two axes, or with fewer than 8 rows or columns.
    """
    if len(shape) < 2:
        return None
    rows, columns = shape[0], math.prod(shape[1:])
    return (rows, columns) if min(rows, columns) >= MIN_SIDE else None


def largest_rank(rows: int, columns: int) -> int:
    """Return the largest rank whose factors have no more elements than the matrix."""
    return min(rows * columns // (rows + columns), MAX_RANK)


@frozen
class Factors:
    """Quantised factors; component `i` is the outer product of their rows `i`.

    Parameters
    ----------
    left, right : ndarray of int8, shape (rank, rows) and (rank, columns)
        Levels of `FACTOR_BITS` bits.
    left_steps, right_steps : ndarray of float32, shape (rank,)
        Value of a level, one for each component.
    """

    left: Levels
    right: Levels
    left_steps: Vector
    right_steps: Vector

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.left)

    def strongest(self, rank: int) -> Factors:
        """Return the first `rank` components."""
        return Factors(
            self.left[:rank],
            self.right[:rank],
            self.left_steps[:rank],
            self.right_steps[:rank],
        )

    def left_values(self) -> Vector:
        """Return the left factor, shape (rank, rows)."""
        return _values(self.left, self.left_steps)

    def right_values(self) -> Vector:
        """Return the right factor, shape (rank, columns)."""
        return _values(self.right, self.right_steps)


def _values(levels: Levels, steps: Vector) -> Vector:
    with np.errstate(over="ignore"):
        values: Vector = levels.astype(np.float32) * steps[:, None]
    return values


def factor_bits(rank: int, rows: int, columns: int) -> int:
    """Return the most bits that factors take: whole planes, and a step a row."""
    return FACTOR_BITS * (rank * (rows + columns) + 7) + 2 * 32 * rank


def add_product(target: Array, factors: Factors) -> None:
    """Add the components to a matrix, one after the other.

    Each is one float32 product and one float32 sum an element, so that encoder and
    decoder agree to the bit on any machine, which a matrix product would not.
    """
    left, right = factors.left_values(), factors.right_values()
    rows = max(BLOCK // max(right.shape[1], 1), 1)
    product = np.empty((min(rows, len(target)), right.shape[1]), np.float32)
    for part in blocks(len(target), rows):
        piece = target[part]
        for column, row in zip(left, right, strict=True):
            piece += np.multiply.outer(column[part], row, out=product[: len(piece)])


def factorise(matrix: Vector, rank: int, warm: Vector | None = None) -> Factors | None:
    """Approximate a matrix by `rank` quantised components, strongest first.

    One step of subspace iteration from the right factor of the last round, two from
    fixed noise without one: ``P = orth(M Q)``, ``Q = M^T P``, rotated to the
    singular directions within that subspace. The left factor is quantised first and
    the right one fitted to it by least squares, so that it makes up for rounding.

    Parameters
    ----------
    matrix : ndarray of float32, shape (rows, columns)
        Finite values.
    rank : int
        Number of components, at least 1.
    warm : ndarray of float32, optional, shape (any, columns)
        An earlier right factor.

    Returns
    -------
    Factors or None
        `None` for a matrix of zeros, or one beyond the range of float32 factors.

    References
    ----------
    Vogels, Karimireddy and Jaggi (2019), "PowerSGD", arXiv:1905.13727. Quantised
    factors and the refit are ours.
    """
    peak = float(np.abs(matrix).max())
    if peak == 0:
        return None
    exponent = math.frexp(peak)[1]
    scaled = np.ldexp(matrix, -exponent)
    start = np.random.default_rng(0).standard_normal((rank, matrix.shape[1]))
    basis = start.astype(np.float32)
    if warm is not None:
        held = warm[:rank]
        basis[: len(held)] = held / (np.abs(held).max(axis=1, keepdims=True) + _TINY)
    for _ in range(1 if warm is not None else _COLD_ITERATIONS):
        left, _ = np.linalg.qr(scaled @ basis.T)
        basis = left.T @ scaled
    rotation, _, _ = np.linalg.svd(basis, full_matrices=False)
    left_levels, left_steps = _quantise((left @ rotation).T)
    rounded = _values(left_levels, left_steps)
    inverse = np.linalg.pinv(rounded @ rounded.T, hermitian=True)
    with np.errstate(over="ignore", under="ignore"):
        right = np.ldexp(inverse @ (rounded @ scaled), exponent)
    if not np.isfinite(right).all():
        return None
    right_levels, right_steps = _quantise(right)
    return Factors(left_levels, right_levels, left_steps, right_steps)


def _quantise(factor: Vector) -> tuple[Levels, Vector]:
    found = [quantize_uniform(row, FACTOR_BITS) for row in factor]
    levels = np.stack([own for own, _ in found])
    return levels, np.array([step for _, step in found], np.float32)
