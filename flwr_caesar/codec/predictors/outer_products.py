"""Sums of outer products that a frame tells: what the rows of a residual share."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import Index3, Shape3, along, long_axis
from ..coding.contexts import context_bits, fit_scales, scale_classes
from ..coding.integers import Integers
from ..contract.energy import energy
from ..contract.layout import Array
from ..contract.vector import Vector

MAX_RANK = 32
"""The most products of a tensor."""

MIN_SIZE = 1 << 13
"""Elements of the smallest tensor that may have products."""

MOST_DOUBLINGS = 15
"""The largest power of two that a product may be multiplied by."""

_EXACT = 1 << 24
_MIN_SIDE = 8
_SAMPLE = 1 << 15
_SPARE = 4
_SHORT = 128
_LEAST = 1e-6  # of the largest square: less is rounding
_ENERGIES = 2.0**-100, 2.0**100  # whose squares float32 has, too
_NOISE = 12.0  # a uniform error of one step has a twelfth of the step's square
_GAUSSIAN = 2 * math.pi * math.e
_BITS_PER_PRODUCT = 64


@frozen
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
    large = rows * columns >= MIN_SIZE and min(rows, columns) >= _MIN_SIDE
    return rank > 0 and large


def fit_products(residual: Vector, step: np.float32, rank: int) -> Products | None:
    """Return the products that make a residual's integers the shortest, if any do.

    See `choose`; errors are within half a step anyhow.

    Parameters
    ----------
    residual : ndarray of float32, shape (outputs, inputs, positions)
        What a predictor leaves.
    step : float32
        The quantiser's.
    rank : int
        The most products, from 1 to 32.
    """
    found = directions(residual, rank)
    return choose(residual, found, step)[0] if found is not None else None


@frozen
class Directions:
    """Singular values of a matrix, and their vectors as rows, the largest first.

    Parameters
    ----------
    energy : float
        The sum of all squares.
    values : ndarray of float64, shape (rank,)
        Positive.
    left, right : ndarray of float32, shape (rank, rows) and (rank, columns)
        Of length 1.
    """

    energy: float
    values: Array
    left: Vector
    right: Vector


def directions(x: Vector, rank: int) -> Directions | None:
    """Return the strongest directions of a tensor; `None` where there are none."""
    whole = energy(x.reshape(-1))
    if not _ENERGIES[0] < whole < _ENERGIES[1]:
        return None
    try:
        left, values, right = _strongest(x.reshape(len(x), -1), rank)
    except np.linalg.LinAlgError:
        return None
    return Directions(whole, values, left, right)


def choose(
    x: Vector, found: Directions, step: np.float32, weight: float = 0.0
) -> tuple[Products | None, float]:
    """Return the products of a tensor that cost the least, if any do.

    As many as take fewer bits than they save by the logarithm of what is left of the
    energy, or a half or a quarter of them; each of them as finely rounded as pays.
    Which of these, and whether any, is decided by the bits of at least 32,768 elements
    of the rest, and its error.

    Parameters
    ----------
    x : ndarray of float32, shape (outputs, inputs, positions)
        The tensor.
    found : Directions
        Its own.
    step : float32
        The quantiser's.
    weight : float
        Bits that a squared error of one step is worth.

    Returns
    -------
    Products or None
        The products.
    float
        About the energy of the rest.
    """
    shape = x.shape[0], x.shape[1], x.shape[2]
    deviations, most = _worth(found, float(step))
    sample = along(long_axis(shape), slice(None, None, max(x.size // _SAMPLE, 1)))
    part = x[sample]
    scale = x.size / part.size
    best, left, least = None, found.energy, scale * _cost(part, step, weight)
    for count in sorted({most, most // 2, most // 4} - {0}):
        products = _rounded(found, count, float(deviations[count]))
        if products is None:
            continue
        rest = part - products.part(sample, shape)
        bits = scale * _cost(rest, step, weight) + bits_of(products)
        if bits < least:
            best, least = products, bits
            left = scale * energy(rest.reshape(-1))
    return best, left


def _strongest(matrix: Vector, rank: int) -> tuple[Vector, Array, Vector]:
    """Return the largest singular values, and their vectors as rows.

    Those of a matrix with a short side are the eigenvalues of the product with its
    transpose; of others those of a subspace that two power iterations from fixed noise
    find.

    References
    ----------
    Halko, Martinsson and Tropp (2011), arXiv:0909.4061, algorithm 4.4.
    """
    if min(matrix.shape) > _SHORT:
        return _in_subspace(matrix, rank)
    if len(matrix) > matrix.shape[1]:
        columns, values, rows = _strongest(matrix.T, rank)
        return rows, values, columns
    squares, vectors = np.linalg.eigh(matrix @ matrix.T)
    largest = squares[::-1][:rank]
    count = int((largest > _LEAST * squares[-1]).sum())
    values = np.sqrt(largest[:count].astype(np.float64))
    left = np.ascontiguousarray(vectors[:, ::-1][:, :count].T)
    right: Vector = left @ matrix
    right /= values[:, np.newaxis]
    return left, values, right


def _in_subspace(matrix: Vector, rank: int) -> tuple[Vector, Array, Vector]:
    kept = min(rank + _SPARE, *matrix.shape)
    shape = matrix.shape[1], kept
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    basis, _ = np.linalg.qr(matrix @ noise)
    for _ in range(2):
        back, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ back)
    left, values, right = _strongest(basis.T @ matrix, rank)
    return left @ basis.T, values, right


def _worth(found: Directions, step: float) -> tuple[Array, int]:
    """Return the noise beside so many products, and how many save bits at the most.

    Returns
    -------
    deviations : ndarray of float64, shape (rank + 1,)
        Of what is left after none, one and more products, rounding included.
    count : int
        With how many the bits are the fewest, were all elements alike.
    """
    sides = found.left.shape[1], found.right.shape[1]
    size = sides[0] * sides[1]
    squares = np.concatenate([[0.0], np.cumsum(np.square(found.values))])
    each = np.maximum((found.energy - squares) / size, 0.0)
    bits = size / 2 * np.log2(1 + _NOISE * each / step**2)
    deviations = np.sqrt(np.maximum(each, step**2 / _NOISE))
    for count in range(1, len(bits)):
        values = found.values[:count]
        spread = np.square(values) / (_NOISE * deviations[count] ** 2)
        for side in sides:
            bits[count] += (side / 2 * np.log2(1 + _GAUSSIAN * spread / side)).sum()
        bits[count] += _BITS_PER_PRODUCT * count
    return deviations, int(bits.argmin())


def _rounded(found: Directions, count: int, deviation: float) -> Products | None:
    """Return the first products of integers; `None` if those would be too large."""
    values = found.values[:count]
    unit = np.float32(_NOISE * deviation**2 / values[0])
    if not 0 < unit < math.inf:
        return None
    doublings = np.rint(np.log2(values[0] / values)).clip(0, MOST_DOUBLINGS)
    scale = np.sqrt(values / (float(unit) * 2.0**doublings))[:, np.newaxis]
    left, right = (
        np.rint(side[:count] * scale).astype(np.int32)
        for side in (found.left, found.right)
    )
    products = Products(unit, doublings.astype(np.uint8), left, right)
    return products if products.is_exact else None


def _cost(residual: Vector, step: np.float32, weight: float) -> float:
    """Return about how many bits the integers of a residual take, and its error."""
    shape = residual.shape[0], residual.shape[1], residual.shape[2]
    in_steps = residual / step
    indices = np.rint(in_steps).astype(np.int32)
    bits = context_bits(indices, scale_classes(fit_scales(residual, step), shape))
    if weight:
        in_steps -= indices
        bits += weight * float(np.square(in_steps, dtype=np.float64).sum())
    return bits


def bits_of(products: Products) -> float:
    """Return about how many bits products take."""
    bits = float(_BITS_PER_PRODUCT * len(products.doublings))
    for side in (products.left, products.right):
        squares = np.square(side.astype(np.float64)).mean(axis=1)
        bits += float(side.shape[1] / 2 * np.log2(1 + _GAUSSIAN * squares).sum())
    return bits
