"""Steps of the tensors of an update, and the indices that these give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import blocks
from ..coding.contexts import as_channels, fit_scales, scale_classes
from ..coding.integers import Integers
from ..contract.layout import TensorSpec
from ..contract.vector import Vector, slices
from .goal import GAUSSIAN_BITS
from .pieces import Pieces
from .quantise import quantise_dead_zone
from .step_search import DEFAULT_DEAD_ZONE, Quantiser, Step, StepSearch
from .tensor_steps import (
    FINE_BITS,
    generous_rate,
    root_mean_square,
    together,
)
from .tensor_steps import offsets as unlike
from .ties import is_silent, shares

MIN_EXPONENT, MAX_EXPONENT = -149, 100
MIN_OFFSET, MAX_OFFSET = -127, 127
_FRAME_BITS, _BITS_PER_SCALE = 1600, 5
_FINE_BAND = (1, 14)
_PEAK_BITS = 29
_MODERATE = 60
_T = TypeVar("_T")
_LARGEST = float(np.finfo(np.float32).max) * (1 - 2.0**-22)


@frozen
class Target:
    """What a quantiser has to meet; see `LatticeCodec` for the meaning of each.

    Parameters
    ----------
    rate, step, nmse : float
        The step if not 0, else the relative error if not 0, else the rate.
    fine_below : int
        Below how many elements a tensor's step is 64 times finer.
    dead_zone : float
        0: the best one.
    """

    rate: float
    step: float
    nmse: float
    fine_below: int
    dead_zone: float = 0.0


@frozen
class Quantised:
    """Integers of all tensors, and their steps.

    Parameters
    ----------
    step : Step
        Of tensors that are neither fine nor have an offset.
    offsets : tuple of int
        For each tensor the octaves by which its own step is coarser.
    indices : ndarray of int32, shape (n,)
        All tensors, one after another.
    """

    step: Step
    offsets: tuple[int, ...]
    indices: Integers


def extra_bits(spec: TensorSpec, fine_below: int) -> int:
    """Return by how many octaves a tensor's step is finer as it is a small one."""
    return FINE_BITS if spec.size < fine_below else 0


def quantise(
    x: Vector,
    specs: Sequence[TensorSpec],
    target: Target,
    before: Sequence[float] | None = None,
) -> Quantised:
    """Choose the steps of tensors and quantise them in place.

    The tensors that are not small set the step, or where all of these are 0, the small
    ones; those of another scale get another step (`tensor_steps.offsets`). A small
    tensor gets a finer one where its own would exceed half of its scale.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        The tensors, flattened and concatenated (`vector.gather`). The indices take its
        memory, so that a model is not held twice.
    specs : sequence of TensorSpec
        The tensors.
    target : Target
        What to meet.
    before : sequence of float, optional
        Root mean squares of tensors before something was taken out of them: which are
        of another scale is told by these.
    """
    parts = slices(specs)
    scales = [root_mean_square(x[part]) for part in parts]
    active = [i for i, scale in enumerate(scales) if scale]
    coarse = [i for i in active if not extra_bits(specs[i], target.fine_below)]
    chosen = coarse or active
    if not chosen:
        return Quantised(Step(4, 0), (0,) * len(specs), np.zeros(len(x), np.int32))
    of_own = [(scales if before is None else before)[i] for i in chosen]
    quantiser, own = _search_steps(x, specs, scales, chosen, of_own, target)
    step = quantiser.step
    if not (coarse or target.step):
        step = _coarser(step, FINE_BITS)
    exponent = min(max(step.exponent, MIN_EXPONENT), MAX_EXPONENT)
    step = replace(step, exponent=exponent)
    offsets, indices = [0] * len(specs), x.view(np.int32)
    for i in range(len(specs)):
        if not scales[i]:
            indices[parts[i]] = 0
            continue
        extra = extra_bits(specs[i], target.fine_below)
        common = math.ldexp(step.value, -extra)
        offset = own.get(i, 0)
        if i not in own and not target.step:
            offset = _fine_offset(common / scales[i], by_rate=not target.nmse)
        peak = _peak(x[parts[i]], scales[i], common)
        least = math.ceil(math.log2(peak / common)) - _PEAK_BITS
        lowest = MIN_EXPONENT - step.exponent + extra
        offsets[i] = max(offset, least, lowest, MIN_OFFSET)
        own_step = _coarser(step, offsets[i] - extra)
        _quantise_in_place(x[parts[i]], peak, own_step, quantiser.dead_zone)
    return Quantised(step, tuple(offsets), indices)


def _search_steps(
    x: Vector,
    specs: Sequence[TensorSpec],
    scales: Sequence[float],
    chosen: Sequence[int],
    of_own: Sequence[float],
    target: Target,
) -> tuple[Quantiser, dict[int, int]]:
    """Return the step of the tensors that set it, and the offsets of these.

    For a rate, tensors are brought to one scale by powers of two before the search. An
    error is that of all of them as they are, and offsets only make it smaller.
    """
    sizes = [specs[i].size for i in chosen]
    reference, off = unlike(of_own, sizes)
    lift = max(off)
    if not (target.step or target.nmse):
        # The offset of the largest scale, too, has to fit into a byte.
        lift = max(lift - MAX_OFFSET // 2, 0)
    shift = round(math.log2(reference)) + lift
    off = [own - lift for own in off]
    if target.step or abs(shift) < _MODERATE:
        shift = 0
    brought = [0] * len(off) if target.step or target.nmse else off
    pieces = Pieces(
        [x[part] for part in _those(slices(specs), chosen)],
        [-shift - own for own in brought],
    )
    brought_scales = [
        math.ldexp(scales[i], -shift - own)
        for i, own in zip(chosen, brought, strict=True)
    ]
    quantiser = _quantiser(
        pieces, _those(specs, chosen), target, together(brought_scales, sizes)
    )
    offsets = [0] * len(off) if target.step else off
    quantiser = replace(quantiser, step=_coarser(quantiser.step, shift))
    return quantiser, dict(zip(chosen, offsets, strict=True))


def _peak(x: Vector, scale: float, step: float) -> float:
    """Return the largest magnitude, or a bound of it that is as good."""
    bound = scale * math.sqrt(len(x))
    if bound < step * 2.0 ** (_PEAK_BITS - 1) and bound + step < _LARGEST:
        return bound
    return float(np.abs(x).max())


def _those(items: Sequence[_T], chosen: Sequence[int]) -> list[_T]:
    return [items[i] for i in chosen]


def _coarser(step: Step, octaves: int) -> Step:
    return replace(step, exponent=step.exponent + octaves)


def _fine_offset(relative: float, *, by_rate: bool) -> int:
    """Return the offset of a small tensor, by its step over its root mean square."""
    log = math.log2(relative)
    least, most = _FINE_BAND
    if log > -least:
        return -math.ceil(log + least)
    return math.ceil(-log - most) if by_rate and log < -most else 0


def _quantise_in_place(x: Vector, peak: float, step: Step, dead_zone: float) -> None:
    """Put its indices, int32, in the place of a tensor."""
    indices = x.view(np.int32)
    exponent = 0 if abs(step.exponent) > 2 * _MODERATE else step.exponent
    most = int(_LARGEST / step.value) if peak + step.value > _LARGEST else None
    for part in blocks(len(x)):
        piece = x[part]
        if exponent != step.exponent:  # float32 does not hold the step well, if at all
            piece = np.ldexp(piece, -step.exponent)
        found = quantise_dead_zone(piece, step.multiple * 2.0**exponent, dead_zone)
        if most is not None:
            found = np.clip(found, -most, most)
        indices[part] = found


def _quantiser(
    x: Pieces, specs: Sequence[TensorSpec], target: Target, scale: float
) -> Quantiser:
    """Return step and dead zone for tensors on one scale.

    Where a dead zone that is given sends next to nothing, as the next finer step sends
    too much, the best one is taken. Where none sends more, as the tensors are of equal
    magnitudes (`ties`), all but some elements become 0.
    """
    if target.step:
        return Quantiser(Step.near(target.step), target.dead_zone or DEFAULT_DEAD_ZONE)
    rate = generous_rate(target.rate, len(x))
    if not target.nmse and rate > target.rate and rate >= 4:
        step = Step.near(scale * 2.0 ** (GAUSSIAN_BITS - rate))
        return Quantiser(step, target.dead_zone or 0.5)
    reference = Step.near(scale)
    if target.nmse and target.dead_zone:
        return StepSearch(x, None, reference).for_error(target.nmse, target.dead_zone)
    search, num_scales = _search(x, specs, reference)
    if target.nmse:
        return search.for_error(target.nmse)
    side = (_FRAME_BITS + _BITS_PER_SCALE * num_scales) / len(x)
    wanted = rate if rate > target.rate else max(rate - side, rate / 4)
    for dead_zone in dict.fromkeys((target.dead_zone, 0.0)):
        quantiser = search.for_rate(wanted, dead_zone)
        if not is_silent(*search.measure(quantiser), wanted):
            return quantiser
    for share in shares(wanted):
        quantiser = Quantiser(Step.near(x.keep_largest(share)), 0.5)
        search, _ = _search(x, specs, reference)
        if search.measure(quantiser)[0] <= wanted:
            break
    return quantiser


def _search(
    x: Pieces, specs: Sequence[TensorSpec], reference: Step
) -> tuple[StepSearch, int]:
    """Return the search for a step, and how many scales tensors have."""
    classes = np.empty(len(x), np.uint8)
    num_scales = 0
    for spec, part, piece in zip(specs, slices(specs), x, strict=True):
        shape = as_channels(spec.shape)
        own = fit_scales(piece.reshape(shape), np.float32(reference.value))
        classes[part].reshape(shape)[...] = scale_classes(own, shape)
        num_scales += len(own)
    return StepSearch(x, classes, reference), num_scales
