"""One tensor of the `error_bounded` codec: prediction, quantiser, choice of mode."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .contexts import Scales, context_bits, count_scales, fit_scales, scale_classes
from .integers import Integers
from .layout import Array
from .positions import Positions
from .predict import (
    MIN_KERNEL,
    Gains,
    Mode,
    fit_gain,
    fit_pair,
    kernel_shape,
    kernel_signs,
    oscillation_shape,
    scaled_previous,
)
from .quantise import bounded_step, quantise_bounded, reconstruct
from .vector import Vector

_MAX_LEVELS = 1 << 21
_SAMPLE = 1 << 17
_BITS_PER_KERNEL = 1.5
_NO_GAINS = np.float32(0), np.float32(0)


@dataclass(frozen=True)
class History:
    """What both sides remember of a tensor, shape (outputs, inputs, positions)."""

    previous: Vector
    average: Vector
    magnitude: Vector


@dataclass(frozen=True)
class Coded:
    """A tensor as quantised: what is sent of it, and its reconstruction."""

    mode: Mode
    step: np.float32
    gains: Gains
    scales: Scales
    size: int
    indices: Integers
    reconstruction: Vector
    signs: Integers | None = None
    positions: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    values: Vector = field(default_factory=lambda: np.empty(0, np.float32))
    whole: Vector = field(default_factory=lambda: np.empty(0, np.float32))

    def without_arrays(self) -> Coded:
        """Drop what is as large as the tensor, but for `whole`."""
        return replace(
            self,
            indices=np.empty(0, np.int32),
            reconstruction=np.empty(0, np.float32),
        )


def predict(
    mode: Mode,
    gains: Gains,
    history: History | None,
    signs: Integers | None,
    shape: tuple[int, ...],
) -> Vector:
    """Return the prediction of a mode; see `predict` for the formulas."""
    if history is None or mode in (Mode.NONE, Mode.RAW):
        return np.broadcast_to(np.float32(0), shape)
    if mode is Mode.SCALED_PREVIOUS:
        return scaled_previous(history.previous, history.average, gains)
    prediction = _shape(mode, history, signs)
    prediction *= gains[0]
    return prediction


def _shape(mode: Mode, history: History, signs: Integers | None) -> Vector:
    if mode is Mode.OSCILLATION or signs is None:
        return oscillation_shape(history.previous, history.magnitude)
    kernels = history.magnitude.reshape(len(signs), -1)
    return kernel_shape(signs, kernels).reshape(history.magnitude.shape)


def encode(x: Vector, history: History | None, bound: float) -> Coded:
    """Quantise a tensor in the mode that takes the fewest bits.

    The modes are compared by the ideal length of their indices given half-octave scale
    contexts, with tables and side information, on at least 131,072 elements (whole
    output channels) of larger tensors.

    Parameters
    ----------
    x : ndarray of float32, shape (outputs, inputs, positions)
        The tensor.
    history : History or None
        Of the same shape; `None` in the first round.
    bound : float
        Largest error allowed.
    """
    step = bounded_step(bound)
    largest = float(np.abs(x).max())
    if step == 0 or largest > _MAX_LEVELS * float(step):
        return Coded(
            Mode.RAW,
            np.float32(1),
            _NO_GAINS,
            np.zeros(count_scales(_shape3(x)), np.int16),
            x.size,
            np.zeros(x.shape, np.int32),
            x.copy(),
            whole=x.reshape(-1),
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mode, gains, signs = _choose(x, history, step, bound)
        prediction = predict(mode, gains, history, signs, x.shape)
        scales = fit_scales(x - prediction, step)
        indices, xhat, raw = quantise_bounded(x, prediction, step, bound)
    positions = np.flatnonzero(raw)
    return Coded(
        mode,
        step,
        gains,
        scales,
        x.size,
        indices,
        xhat,
        signs,
        positions,
        x.reshape(-1)[positions],
    )


def decode(
    indices: Integers,
    step: np.float32,
    mode: Mode,
    gains: Gains,
    history: History | None,
    signs: Integers | None,
) -> Vector:
    """Rebuild a tensor that `encode` did not send raw."""
    prediction = predict(mode, gains, history, signs, indices.shape)
    return reconstruct(indices, step, prediction)


def _shape3(x: Array) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2]


def _choose(
    x: Vector, history: History | None, step: np.float32, bound: float
) -> tuple[Mode, Gains, Integers | None]:
    if history is None:
        return Mode.NONE, _NO_GAINS, None
    stride = max(x.size // _SAMPLE, 1) if x.shape[0] > 1 else 1
    part = x[::stride]
    seen = History(
        history.previous[::stride],
        history.average[::stride],
        history.magnitude[::stride],
    )
    modes = [Mode.NONE, Mode.SCALED_PREVIOUS, Mode.OSCILLATION]
    if x.shape[2] >= MIN_KERNEL and x.shape[0] * x.shape[1] > 1:
        modes.append(Mode.KERNEL_SIGNS)
    best: tuple[float, Mode, Gains] | None = None
    for mode in modes:
        signs = _signs(mode, part)
        gains = _gains(mode, part, seen, signs)
        prediction = predict(mode, gains, seen, signs, part.shape)
        indices, _, _ = quantise_bounded(part, prediction, step, bound)
        scales = fit_scales(part - prediction, step)
        bits = context_bits(indices, scale_classes(scales, _shape3(part)))
        bits += _BITS_PER_KERNEL * len(signs) if signs is not None else 0
        if best is None or bits < best[0]:
            best = bits, mode, gains
    assert best is not None
    _, mode, gains = best
    return mode, gains, _signs(mode, x)


def _signs(mode: Mode, x: Vector) -> Integers | None:
    if mode is not Mode.KERNEL_SIGNS:
        return None
    return kernel_signs(x.reshape(x.shape[0] * x.shape[1], -1))


def _gains(mode: Mode, x: Vector, history: History, signs: Integers | None) -> Gains:
    if mode is Mode.NONE:
        return _NO_GAINS
    if mode is Mode.SCALED_PREVIOUS:
        return fit_pair(x, history.previous, history.average)
    return fit_gain(x, _shape(mode, history, signs)), np.float32(0)
