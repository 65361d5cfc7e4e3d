"""How fine each tensor of a published model is, first and from round to round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..coding.blocks import blocks
from ..contract.energy import energy
from ..contract.layout import Array, Arrays, Layout, TensorSpec
from ..contract.power import times_power
from ..quantisers.tensor_steps import (
    FINE_BITS,
    generous_rate,
    offsets,
    root_mean_square,
)
from .model_point import (
    DEFAULT_RULES,
    FINE_RANGE_BITS,
    MOST_FINE_BITS,
    LatticeRules,
    ModelPoint,
    is_special,
)

FIRST_BITS = 6
_LOWEST, _HIGHEST, _OF_ZERO = -90, 50, -16
_LEAST_BITS, _MOST_BITS = 2, 14
GAUSSIAN_BITS = 2.05  # entropy of a normal variable in steps of its deviation


def first_exponents(
    model: Arrays, rules: LatticeRules = DEFAULT_RULES, bits: int = FIRST_BITS
) -> list[int]:
    """Return the exponents of a first point, each by its tensor's own scale.

    The step of a tensor is the power of two nearest to its root mean square, divided
    by 2 to the power of `bits`. With 6 a whole model costs about 8 bits an element and
    has a squared error of 2e-5 of its square; with 0 about 2 bits. A small tensor is 64
    times finer, and at least 1,024 times finer than its largest element.

    Parameters
    ----------
    model : mapping of str to ndarray
        The initial model.
    rules : LatticeRules
        What is on the lattice, and which tensors are small.
    bits : int
        See above.
    """
    exponents = []
    for spec in rules.split(Layout.of(model))[1]:
        array = model[spec.name]
        own = log2(root_mean_square(array)) - bits
        if spec.size < rules.fine_below and not is_special(array):
            top = math.frexp(float(np.abs(array).max(initial=0)))[1]
            own = min(own - FINE_BITS, top - FINE_RANGE_BITS)
        exponents.append(own)
    return exponents


def next_exponents(
    model: Arrays,
    now: ModelPoint,
    step_sigmas: float,
    since: ModelPoint | None = None,
) -> tuple[int | None, list[int]]:
    """Return the exponent of the step that suits a model, and those of its tensors.

    The step is the power of two nearest to `step_sigmas` deviations (root mean squares)
    of the model from the point that devices mostly hold, over the tensors that are not
    small and have changed, or over the small ones if no other has. It is finer where
    few elements changed (`tensor_steps.generous_rate`). Tensors of which the changes
    are of another scale have another step (`tensor_steps.offsets`). A small tensor is
    64 times finer than the others, at most its own change divided by 4, and at least
    1,024 times finer than its largest element as long as that is at most 65,536 times
    finer than the others.

    Parameters
    ----------
    model : mapping of str to ndarray
        The model to publish.
    now : ModelPoint
        Published last.
    step_sigmas : float
        See above.
    since : ModelPoint, optional
        What devices mostly hold; `now` by default.

    Returns
    -------
    tuple of int or None, and list of int
        `None` if there is nothing to publish; the tensors then keep their exponents.
    """
    lossy = now.rules.split(now.layout)[1]
    since = now if since is None else since
    gaps = [
        0.0 if spec.name in now.special else _gap(model, since, i, spec)
        for i, spec in enumerate(lossy)
    ]
    active = [i for i, gap in enumerate(gaps) if gap]
    coarse = [i for i in active if lossy[i].size >= now.rules.fine_below]
    stepped = coarse or active
    if not stepped:
        return None, list(now.exponents)
    sizes = [lossy[i].size for i in stepped]
    reference, found = offsets([gaps[i] for i in stepped], sizes)
    exponent = log2(reference * step_sigmas) - _finer(step_sigmas, sum(sizes))
    if not coarse:
        exponent += FINE_BITS
    off = dict(zip(stepped, found, strict=True))
    exponents = list(now.exponents)
    for i in active:
        own = exponent + off.get(i, 0)
        if lossy[i].size < now.rules.fine_below:
            own = _small_exponent(model[lossy[i].name], gaps[i], own)
        exponents[i] = own
    return exponent, exponents


def _gap(model: Arrays, point: ModelPoint, i: int, spec: TensorSpec) -> float:
    """Return the root mean square of what a point lacks of a tensor."""
    array = model[spec.name]
    if spec.name in point.special or is_special(array):
        return 0.0
    flat, own = array.reshape(-1), point.points[i]
    total = 0.0
    for part in blocks(spec.size):
        gap = flat[part].astype(np.float64)
        gap -= times_power(own.indices[part].astype(np.float64), own.exponent)
        total += energy(gap)
    return math.sqrt(total / spec.size)


def _finer(step_sigmas: float, n: int) -> int:
    usual = GAUSSIAN_BITS - math.log2(step_sigmas)
    return round(generous_rate(usual, n) - usual)


def _small_exponent(array: Array, gap: float, exponent: int) -> int:
    top = math.frexp(float(np.abs(array).max()))[1]
    own = max(top - FINE_RANGE_BITS, exponent - MOST_FINE_BITS)
    own = min(exponent - FINE_BITS, own)
    change = math.floor(math.log2(gap))
    return min(max(own, change - _MOST_BITS), change - _LEAST_BITS)


def log2(value: float) -> int:
    """Return the nearest exponent, within what a step may be."""
    if not 0 < value < math.inf:
        return _HIGHEST if value else _OF_ZERO
    return min(max(round(math.log2(value)), _LOWEST), _HIGHEST)


def expected_bits(scales: Sequence[float], sizes: Sequence[int]) -> float:
    """Return about how many bits integers of these root mean squares take."""
    return sum(
        n * max(0.0, math.log2(scale + 2.0**-9) + GAUSSIAN_BITS)
        for scale, n in zip(scales, sizes, strict=True)
    )
