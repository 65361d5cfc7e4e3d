"""What the rows of an update share, taken out before the rest is quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..coding.blocks import tensor_blocks
from ..coding.contexts import as_channels
from ..contract.energy import energy
from ..contract.layout import TensorSpec
from ..contract.vector import Vector, slices
from ..quantisers.tensor_steps import root_mean_square
from .outer_products import Products, bits_of, choose, directions, has_products

# Found by trying on recorded updates: bits for a squared error of one step; and the
# squared error that the first step stands for, over the one that is wanted.
_WEIGHT, _FIRST = 2.5, 2.0
# An octave less of error takes so many bits an element, where most become 0.
_BITS_AN_OCTAVE = 0.15
_TRIALS = 6
_LEAST_ERROR, _MOST_ERROR = 2.0**-40, 0.999


def take_out(
    vector: Vector, specs: Sequence[TensorSpec], nmse: float, rank: int, fine_below: int
) -> tuple[list[Products | None], float, list[float]]:
    """Subtract products from tensors in place, where these save bits at an error.

    Where what they leave is less than the error, products are told more finely than
    is asked for: they are chosen again for a coarser step. Of all choices that one is
    taken that needs the fewest bits, about those of what is still too much included.

    Parameters
    ----------
    vector : ndarray of float32, shape (n,)
        The tensors, flattened and concatenated.
    specs : sequence of TensorSpec
        The tensors.
    nmse : float
        The squared error that the tensors are to have, over their energy. Below 2^-40,
        where float32 has few bits to save, nothing is taken out.
    rank : int
        The most products of a tensor.
    fine_below : int
        Smaller tensors do not count.

    Returns
    -------
    list of Products or None
        Of each tensor.
    float
        The same error over the energy of what is left.
    list of float
        The root mean square of each tensor before.
    """
    none: list[Products | None] = [None] * len(specs)
    parts = slices(specs)
    scales = [root_mean_square(vector[part]) for part in parts]
    energies = [s**2 * spec.size for s, spec in zip(scales, specs, strict=True)]
    counted = [i for i, spec in enumerate(specs) if spec.size >= fine_below]
    whole, size = sum(energies[i] for i in counted), sum(specs[i].size for i in counted)
    tensors = {
        i: vector[parts[i]].reshape(as_channels(specs[i].shape))
        for i in counted
        if has_products(as_channels(specs[i].shape), rank)
    }
    if not tensors or not 0 < whole < math.inf or nmse < _LEAST_ERROR:
        return none, nmse, scales
    best, fewest, wanted = none, math.inf, nmse * whole
    others = whole - sum(energies[i] for i in tensors)
    strongest = {i: directions(x, rank) for i, x in tensors.items()}
    step = math.sqrt(12 * _FIRST * wanted / size)
    for _ in range(_TRIALS):
        found, left = list(none), others
        for i, own in strongest.items():
            if own is None:
                left += energies[i]
                continue
            found[i], rest = choose(tensors[i], own, np.float32(step), _WEIGHT)
            left += rest
        bits = sum(bits_of(each) for each in found if each is not None)
        bits += _BITS_AN_OCTAVE * size * math.log2(max(left / wanted, 1.0))
        if bits < fewest:
            best, fewest = found, bits
        if left >= wanted:
            break
        step *= math.sqrt(2)
    left = others
    for i, x in tensors.items():
        if (products := best[i]) is not None:
            add(x, products, sign=-1)
        left += energy(vector[parts[i]])
    error = nmse * whole / left if left > 0 else 1.0
    return best, min(error, _MOST_ERROR), scales


def add(x: Vector, products: Products, sign: int = 1) -> None:
    """Add products to a tensor in place, or subtract them."""
    shape = x.shape[0], x.shape[1], x.shape[2]
    for at, _ in tensor_blocks(shape):
        with np.errstate(over="ignore", invalid="ignore"):  # of a hostile unit
            part = products.part(at, shape)
            x[at] += part if sign > 0 else -part
