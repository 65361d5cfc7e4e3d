"""Steps of the tensors of an update, and the indices that these give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .contexts import as_channels, fit_scales, scale_classes
from .integers import Integers
from .layout import TensorSpec
from .planner import DEFAULT_DEAD_ZONE, Plan, Planner, Step
from .quantise import quantise_dead_zone
from .tensor_steps import (
    FINE_BITS,
    generous_rate,
    octaves_below,
    pooled,
    root_mean_square,
)
from .vector import Vector, slices

MIN_EXPONENT, MAX_EXPONENT = -149, 100
MIN_OFFSET, MAX_OFFSET = -127, 127
_FRAME_BITS, _BITS_PER_SCALE = 1600, 5
_FINE_BAND = (1, 14)
_PEAK_BITS = 29
_MODERATE = 60
_GAUSSIAN_BITS = 2.05  # entropy of a normal variable in steps of its deviation
_LARGEST = float(np.finfo(np.float32).max) * (1 - 2.0**-22)


@dataclass(frozen=True)
class Target:
    """What a plan has to meet; see `lattice.Lattice` for the meaning of each.

    Parameters
    ----------
    rate, step, nmse : float
        The step if not 0, else the relative error if not 0, else the rate.
    fine_below : int
        Below how many elements a tensor's step is 64 times finer.
    """

    rate: float
    step: float
    nmse: float
    fine_below: int


@dataclass(frozen=True)
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


def quantise(x: Vector, specs: Sequence[TensorSpec], target: Target) -> Quantised:
    """Choose the steps of tensors and quantise them.

    The tensors that are not small set the step, or where all of these are 0, the small
    ones. One whose root mean square is more than four times below that of all gets a
    step that is finer by as much; so does a small one whose own scale its step would
    exceed by more than a quarter.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        The tensors, flattened and concatenated (`vector.gather`).
    specs : sequence of TensorSpec
        The tensors.
    target : Target
        What to meet.
    """
    parts = slices(specs)
    scales = [root_mean_square(x[part]) for part in parts]
    active = [i for i, scale in enumerate(scales) if scale]
    coarse = [i for i in active if not extra_bits(specs[i], target.fine_below)]
    planned = coarse or active
    if not planned:
        return Quantised(Step(4, 0), (0,) * len(specs), np.zeros(len(x), np.int32))
    reference = pooled([scales[i] for i in planned], [specs[i].size for i in planned])
    shift = round(math.log2(reference))
    if target.step or abs(shift) < _MODERATE:
        shift = 0
    by_rate = not (target.step or target.nmse)
    own = dict.fromkeys(planned, 0)
    if by_rate:
        own = {i: -octaves_below(scales[i], reference) for i in planned}
    plan = _plan(
        [_scaled(x[parts[i]], -shift - own[i]) for i in planned],
        [specs[i] for i in planned],
        target,
    )
    exponent = plan.step.exponent + shift
    if not (coarse or target.step):
        exponent += FINE_BITS
    exponent = min(max(exponent, MIN_EXPONENT), MAX_EXPONENT)
    step = Step(plan.step.multiple, exponent)
    offsets, indices = [0] * len(specs), np.zeros(len(x), np.int32)
    for i in active:
        extra = extra_bits(specs[i], target.fine_below)
        offset = own.get(i, 0)
        peak = float(np.abs(x[parts[i]]).max())
        common = replace(step, exponent=exponent - extra).value
        if not target.step:
            if i not in own:
                offset = _fine_offset(common / scales[i], by_rate=by_rate)
            elif not by_rate:
                offset = -octaves_below(scales[i], reference)
        least = math.ceil(math.log2(peak / common)) - _PEAK_BITS
        lowest = MIN_EXPONENT - exponent + extra
        offset = max(offset, least, lowest, MIN_OFFSET)
        offsets[i] = offset
        indices[parts[i]] = _indices(
            x[parts[i]], peak, step, offset - extra, plan.dead_zone
        )
    return Quantised(step, tuple(offsets), indices)


def _fine_offset(relative: float, *, by_rate: bool) -> int:
    """Return the offset of a small tensor, by its step over its root mean square."""
    log = math.log2(relative)
    least, most = _FINE_BAND
    if log > -least:
        return -math.ceil(log + least)
    return math.ceil(-log - most) if by_rate and log < -most else 0


def _scaled(x: Vector, exponent: int) -> Vector:
    return np.ldexp(x, exponent) if exponent else x


def _indices(
    x: Vector, peak: float, step: Step, offset: int, dead_zone: float
) -> Integers:
    exponent = step.exponent + offset
    if abs(exponent) > 2 * _MODERATE:  # the step itself is at the end of float32
        x, exponent, peak = np.ldexp(x, -exponent), 0, math.ldexp(peak, -exponent)
        limit = math.ldexp(_LARGEST, -step.exponent - offset)
    else:
        limit = _LARGEST
    width = step.multiple * 2.0**exponent
    indices = quantise_dead_zone(x, width, dead_zone)
    if peak + width > limit:
        most = int(limit / width)
        indices = np.clip(indices, -most, most)
    return indices


def _plan(parts: list[Vector], specs: Sequence[TensorSpec], target: Target) -> Plan:
    """Return step and dead zone for tensors on one scale."""
    if target.step:
        return Plan(Step.near(target.step), DEFAULT_DEAD_ZONE)
    vector = parts[0] if len(parts) == 1 else np.concatenate(parts)
    scale = root_mean_square(vector)
    rate = generous_rate(target.rate, len(vector))
    if not target.nmse and rate > target.rate and rate >= 4:
        return Plan(Step.near(scale * 2.0 ** (_GAUSSIAN_BITS - rate)), 0.5)
    reference = Step.near(scale)
    classes = np.empty(len(vector), np.uint8)
    num_scales = 0
    for spec, part in zip(specs, slices(specs), strict=True):
        shape = as_channels(spec.shape)
        own = fit_scales(vector[part].reshape(shape), np.float32(reference.value))
        classes[part] = scale_classes(own, shape).reshape(-1)
        num_scales += len(own)
    planner = Planner(vector, classes, reference)
    if target.nmse:
        return planner.for_error(target.nmse)
    side = (_FRAME_BITS + _BITS_PER_SCALE * num_scales) / len(vector)
    if rate > target.rate:
        return planner.for_rate(rate)
    return planner.for_rate(max(rate - side, rate / 4))
