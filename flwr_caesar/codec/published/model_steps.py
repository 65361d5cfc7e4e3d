"""How fine each tensor of a published model is, first and from round to round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress

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
    together,
)
from .model_point import (
    DEFAULT_RULES,
    FINE_RANGE_BITS,
    MOST_FINE_BITS,
    LatticeRules,
    ModelPoint,
    is_special,
    publish_model,
)

FIRST_BITS = 6
_LOWEST, _HIGHEST, _OF_ZERO = -90, 50, -16
_LEAST_BITS, _MOST_BITS = 2, 14
_STEADY = 1.25  # octaves
_FLOORED = 0.5  # by which a step is finer than the largest, on average
_MOST_FINER = 3
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


def next_point(
    model: Arrays, now: ModelPoint, since: ModelPoint, step_sigmas: float, last: int
) -> tuple[int, ModelPoint]:
    """Return the exponent of the step that suits a model, and the model's point.

    The step is that of `next_exponents`, or a finer one where that leaves more than the
    error it stands for, a twelfth of the square of `step_sigmas`: changes of one size
    may all be nearer to no step than to one.

    Parameters
    ----------
    model : mapping of str to ndarray
        The model to publish.
    now, since : ModelPoint
        Published last, and what devices mostly hold.
    step_sigmas : float
        The step, at most, in deviations of what these lack.
    last : int
        The exponent of the last step, returned if there is nothing to publish.
    """
    lacking, finer = lacks(model, since), 0
    tried: tuple[int, ...] = ()
    while True:
        found, steps = next_exponents(model, now, step_sigmas, lacking, last, finer)
        point = publish_model(model, now, steps, now.rules)
        if found is None:
            return last, point
        if finer == _MOST_FINER or point.exponents == tried:  # or float32 has no finer
            return found, point
        if not _leaves_too_much(point, lacking, lacks(model, point), step_sigmas):
            return found, point
        finer, tried = finer + 1, point.exponents


def next_exponents(
    model: Arrays,
    now: ModelPoint,
    step_sigmas: float,
    lacking: Sequence[float] | None = None,
    last: int | None = None,
    finer: int = 0,
) -> tuple[int | None, list[int]]:
    """Return the exponent of the step that suits a model, and those of its tensors.

    The step is the largest power of two that is at most `step_sigmas` deviations (root
    mean squares) of the model from the point that devices mostly hold, over the tensors
    that are not small and have changed, or over the small ones if no other has; the
    last one stays until it is coarser than that, or finer by more than 1.25 octaves: a
    change over several models costs what the finest step among them does. It is finer
    where few elements changed (`tensor_steps.generous_rate`). Tensors of which the
    changes are of another scale have another step (`tensor_steps.offsets`). A small
    tensor is 64 times finer than the others, at most its own change divided by 4, and
    at least 1,024 times finer than its largest element as long as that is at most
    65,536 times finer than the others.

    Parameters
    ----------
    model : mapping of str to ndarray
        The model to publish.
    now : ModelPoint
        Published last.
    step_sigmas : float
        See above.
    lacking : sequence of float, optional
        What the point that devices mostly hold lacks (`lacks`); that of `now` by
        default.
    last : int, optional
        The exponent of the last step.
    finer : int
        Octaves by which the step is to be finer than that.

    Returns
    -------
    tuple of int or None, and list of int
        `None` if there is nothing to publish; the tensors then keep their exponents.
    """
    lossy = now.rules.split(now.layout)[1]
    lacking = lacks(model, now) if lacking is None else lacking
    gaps = [
        0.0 if spec.name in now.special else gap
        for spec, gap in zip(lossy, lacking, strict=True)
    ]
    active = [i for i, gap in enumerate(gaps) if gap]
    coarse = [i for i in active if lossy[i].size >= now.rules.fine_below]
    stepped = coarse or active
    if not stepped:
        return None, list(now.exponents)
    sizes = [lossy[i].size for i in stepped]
    reference, octaves = offsets([gaps[i] for i in stepped], sizes)
    most = _octave(reference * step_sigmas) - _finer(step_sigmas, sum(sizes))
    if not coarse:
        most += FINE_BITS
    exponent = math.floor(most)
    if last is not None and 0 <= most - last < _STEADY:
        exponent = last
    exponent -= finer
    off = dict(zip(stepped, octaves, strict=True))
    exponents = list(now.exponents)
    for i in active:
        own = exponent + off.get(i, 0)
        if lossy[i].size < now.rules.fine_below:
            own = _small_exponent(model[lossy[i].name], gaps[i], own)
        exponents[i] = own
    return exponent, exponents


def lacks(model: Arrays, point: ModelPoint) -> list[float]:
    """Return the root mean square of what a point lacks of each tensor on a lattice."""
    lossy = point.rules.split(point.layout)[1]
    return [_gap(model, point, i, spec) for i, spec in enumerate(lossy)]


def _leaves_too_much(
    point: ModelPoint, lacking: Sequence[float], left: Sequence[float], sigmas: float
) -> bool:
    """Return whether a point has a larger error than its step stands for."""
    sizes = [spec.size for spec in point.rules.split(point.layout)[1]]
    coarse = [n >= point.rules.fine_below for n in sizes]
    counted = coarse if any(coarse) else [True] * len(sizes)
    own = list(compress(sizes, counted))
    before, after = (
        together(list(compress(found, counted)), own) for found in (lacking, left)
    )
    return after**2 > sigmas**2 / 12 * before**2


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
    usual = GAUSSIAN_BITS - math.log2(step_sigmas) + _FLOORED
    return round(generous_rate(usual, n) - usual)


def _small_exponent(array: Array, gap: float, exponent: int) -> int:
    top = math.frexp(float(np.abs(array).max()))[1]
    own = max(top - FINE_RANGE_BITS, exponent - MOST_FINE_BITS)
    own = min(exponent - FINE_BITS, own)
    change = math.floor(math.log2(gap))
    return min(max(own, change - _MOST_BITS), change - _LEAST_BITS)


def log2(value: float) -> int:
    """Return the nearest exponent, within what a step may be."""
    return round(_octave(value))


def _octave(value: float) -> float:
    if not 0 < value < math.inf:
        return _HIGHEST if value else _OF_ZERO
    return min(max(math.log2(value), _LOWEST), _HIGHEST)


def expected_bits(scales: Sequence[float], sizes: Sequence[int]) -> float:
    """Return about how many bits integers of these root mean squares take."""
    return sum(
        n * max(0.0, math.log2(scale + 2.0**-9) + GAUSSIAN_BITS)
        for scale, n in zip(scales, sizes, strict=True)
    )
