"""One tensor of the `error_bounded` codec: prediction, quantiser, choice of mode."""

from __future__ import annotations

from dataclasses import field, replace

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import Index3, along, long_axis, tensor_blocks
from ..coding.contexts import (
    Scales,
    SliceSums,
    context_bits,
    count_scales,
    fit_scales,
    scale_classes,
)
from ..coding.integers import Integers, compact
from ..coding.positions import Positions
from ..contract.layout import Array
from ..contract.vector import Vector
from ..quantisers.quantise import bounded_step, quantise_bounded, reconstruct
from .narrowed import Narrow, narrow, widen
from .outer_products import Products, fit_products, has_products
from .predict import (
    MIN_KERNEL,
    Gains,
    Mode,
    advance,
    fit_gain,
    fit_pair,
    kernel_shape,
    kernel_signs,
    normalised_magnitude,
    oscillation_shape,
    scaled_previous,
)
from .published import (
    AUTO,
    FORCED,
    MODES,
    Statistics,
    advance_scores,
    agreement,
    majority_signs,
    published_gains,
    published_mode,
    published_prediction,
)

_MAX_LEVELS = 1 << 21
_SAMPLE = 1 << 15
_BITS_PER_KERNEL = 1.5
_OF_KERNELS = Mode.KERNEL_SIGNS, Mode.PAPER_KERNELS
_PUBLISHED = Mode.PAPER_KERNELS, Mode.PAPER_OSCILLATION
_NO_GAINS = np.float32(0), np.float32(0)


@frozen
class History:
    """What both sides remember of a tensor, shape (outputs, inputs, positions).

    The averages are `narrow`: they are widened for as many elements as are in hand.
    Scores are the paper's, where its predictors are used.
    """

    previous: Vector
    average: Narrow
    magnitude: Narrow
    scores: Vector | None = None

    def part(self, at: Index3) -> History:
        """Return the history of some elements."""
        scores = None if self.scores is None else self.scores[at]
        return History(self.previous[at], self.average[at], self.magnitude[at], scores)


@frozen
class Coded:
    """A tensor as quantised: what is sent of it, and its reconstruction."""

    mode: Mode
    step: np.float32
    gains: Gains
    scales: Scales
    size: int
    indices: Array
    reconstruction: Vector
    signs: Integers | None = None
    products: Products | None = None
    positions: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    values: Vector = field(default_factory=lambda: np.empty(0, np.float32))
    whole: Vector = field(default_factory=lambda: np.empty(0, np.float32))

    def without_arrays(self) -> Coded:
        """Drop what is as large as the tensor, but for `whole`."""
        return replace(
            self,
            indices=np.empty(0, np.int16),
            reconstruction=np.empty(0, np.float32),
        )


def predict(
    mode: Mode,
    gains: Gains,
    step: np.float32,
    history: History | None,
    signs: Integers | None,
    shape: tuple[int, ...],
) -> Vector:
    """Return the prediction of a mode; see `predict` and `published` for formulas."""
    if history is None or mode in (Mode.NONE, Mode.RAW):
        return np.broadcast_to(np.float32(0), shape)
    if mode is Mode.SCALED_PREVIOUS:
        return scaled_previous(history.previous, widen(history.average), gains)
    if mode in _PUBLISHED:
        assert history.scores is not None
        scores, previous = history.scores, history.previous
        return published_prediction(mode, gains, step, scores, previous, signs)
    prediction = _shape(mode, history, signs)
    prediction *= gains[0]
    return prediction


def _shape(mode: Mode, history: History, signs: Integers | None) -> Vector:
    magnitude = widen(history.magnitude)
    if mode is Mode.OSCILLATION or signs is None:
        return oscillation_shape(history.previous, magnitude)
    shape = kernel_shape(signs, magnitude.reshape(len(signs), -1))
    return shape.reshape(magnitude.shape)


def remember(
    reconstruction: Vector,
    step: np.float32,
    history: History | None,
    about: Statistics | None = None,
) -> History:
    """Return the history after a round, from decoded values alone.

    Parameters
    ----------
    reconstruction : ndarray of float32, shape (outputs, inputs, positions)
        What the decoder has, kept as it is.
    step : float32
        Quantiser step of the round; 1 for a tensor that was sent raw.
    history : History or None
        Before the round.
    about : tuple of float32, optional
        Mean and deviation of the decoded magnitudes, where scores are remembered.
    """
    averages = np.empty((2, *reconstruction.shape), np.uint16)
    for at, _ in tensor_blocks(_shape3(reconstruction)):
        average = reconstruction[at]
        magnitude = normalised_magnitude(average, step)
        if history is not None:
            seen = history.part(at)
            average = advance(widen(seen.average), average)
            magnitude = advance(widen(seen.magnitude), magnitude)
        averages[0][at], averages[1][at] = narrow(average), narrow(magnitude)
    scores = None
    if about is not None:
        before = None if history is None else history.scores
        scores = advance_scores(before, reconstruction, about)
    return History(reconstruction, averages[0], averages[1], scores)


def encode(
    x: Vector,
    history: History | None,
    bound: float,
    predictor: str = AUTO,
    rank: int = 0,
) -> Coded:
    """Quantise a tensor in the mode that takes the fewest bits.

    The modes are compared by the ideal length of their indices given half-octave scale
    contexts, with tables and side information, on at least 32,768 elements of larger
    tensors, whole output channels where there are several.

    Parameters
    ----------
    x : ndarray of float32, shape (outputs, inputs, positions)
        The tensor.
    history : History or None
        Of the same shape; `None` in the first round.
    bound : float
        Largest error allowed.
    predictor : str
        Which modes there are to choose from, see `published.MODES`.
    rank : int
        The most products that the rest is also predicted by.
    """
    step = bounded_step(bound)
    largest = float(np.abs(x).max())
    if step == 0 or largest > _MAX_LEVELS * float(step):
        own = x.copy()
        return Coded(
            Mode.RAW,
            np.float32(1),
            _NO_GAINS,
            np.zeros(count_scales(_shape3(x)), np.int16),
            x.size,
            np.zeros(x.shape, np.int16),
            own,
            whole=own.reshape(-1),
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mode, gains = _mode(x, history, step, bound, predictor)
        products = None
        if has_products(_shape3(x), rank):
            rest = _rest(x, history, step, mode, gains)
            products = fit_products(rest, step, rank)
            del rest
        return _quantise(x, history, step, bound, mode, gains, products)


def _rest(
    x: Vector, history: History | None, step: np.float32, mode: Mode, gains: Gains
) -> Vector:
    """Return what a mode leaves."""
    rest = np.empty(x.shape, np.float32)
    for at, _ in tensor_blocks(_shape3(x)):
        piece = x[at]
        seen = history.part(at) if history is not None else None
        own = _signs(mode, piece)
        rest[at] = piece - predict(mode, gains, step, seen, own, piece.shape)
    return rest


def _quantise(
    x: Vector,
    history: History | None,
    step: np.float32,
    bound: float,
    mode: Mode,
    gains: Gains,
    products: Products | None,
) -> Coded:
    """Quantise piece by piece, so that little is held beside the result."""
    shape = _shape3(x)
    indices: Array = np.empty(shape, np.int16)
    xhat = np.empty(shape, np.float32)
    sums = SliceSums(shape)
    signs, positions = [], []
    for at, flat in tensor_blocks(shape):
        piece = x[at]
        own = _signs(mode, piece)
        seen = history.part(at) if history is not None else None
        prediction = predict(mode, gains, step, seen, own, piece.shape)
        if products is not None:
            prediction = prediction + products.part(at, shape)
        found, xhat[at], raw = quantise_bounded(piece, prediction, step, bound)
        found = compact(found)
        if found.dtype != indices.dtype:
            indices = indices.astype(np.int32, copy=False)
        indices[at] = found
        sums.add(at, piece - prediction)
        positions.append(np.flatnonzero(raw) + flat.start)
        if own is not None:
            signs.append(own)
    where = np.concatenate(positions)
    return Coded(
        mode,
        step,
        gains,
        sums.scales(step),
        x.size,
        indices,
        xhat,
        np.concatenate(signs) if signs else None,
        products,
        where,
        x.reshape(-1)[where],
    )


def decode(
    indices: Array,
    step: np.float32,
    mode: Mode,
    gains: Gains,
    history: History | None,
    signs: Integers | None,
    products: Products | None,
) -> Vector:
    """Rebuild a tensor that `encode` did not send raw."""
    x = np.empty(indices.shape, np.float32)
    kernels = signs.reshape(indices.shape[:2]) if signs is not None else None
    for at, _ in tensor_blocks(_shape3(indices)):
        seen = history.part(at) if history is not None else None
        own = kernels[at[:2]].reshape(-1) if kernels is not None else None
        part = indices[at]
        prediction = predict(mode, gains, step, seen, own, part.shape)
        if products is not None:
            prediction = prediction + products.part(at, _shape3(indices))
        x[at] = reconstruct(part, step, prediction)
    return x


def rebuild(coded: Coded, indices: Array, history: History | None) -> Vector:
    """Return what a decoder makes of what `encode` returned.

    Parameters
    ----------
    coded : Coded
        Without its arrays.
    indices : ndarray of int16 or int32, shape (outputs, inputs, positions)
        Its indices.
    history : History or None
        As it was given.
    """
    if coded.mode is Mode.RAW:
        return coded.whole.reshape(indices.shape)
    mode, gains = coded.mode, coded.gains
    with np.errstate(over="ignore", invalid="ignore"):
        signs, products = coded.signs, coded.products
        x = decode(indices, coded.step, mode, gains, history, signs, products)
    x.reshape(-1)[coded.positions] = coded.values
    return x


def _shape3(x: Array) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2]


def _mode(
    x: Vector, history: History | None, step: np.float32, bound: float, predictor: str
) -> tuple[Mode, Gains]:
    if history is None or (predictor in FORCED and history.scores is None):
        return Mode.NONE, _NO_GAINS
    if predictor not in FORCED:
        return _choose(x, history, step, bound, MODES[predictor])
    share = agreement(x, history.previous, bound)
    mode = published_mode(predictor, x, share)
    if mode is Mode.NONE:
        return mode, _NO_GAINS
    return mode, published_gains(mode, x, step, flips=share < 0.5)


def _choose(
    x: Vector,
    history: History,
    step: np.float32,
    bound: float,
    modes: tuple[Mode, ...],
) -> tuple[Mode, Gains]:
    axis = long_axis(_shape3(x))
    sample = along(axis, slice(None, None, max(x.size // _SAMPLE, 1)))
    part, seen = x[sample], history.part(sample)
    has_kernels = x.shape[2] >= MIN_KERNEL and x.shape[0] * x.shape[1] > 1
    best: tuple[float, Mode, Gains] | None = None
    for mode in modes:
        if mode in _OF_KERNELS and not has_kernels:
            continue
        if mode in _PUBLISHED and history.scores is None:
            continue
        signs = _signs(mode, part)
        if mode in _PUBLISHED:
            flips = agreement(part, seen.previous, bound) < 0.5
            gains = published_gains(mode, x, step, flips=flips)
        else:
            gains = _gains(mode, part, seen, signs)
        prediction = predict(mode, gains, step, seen, signs, part.shape)
        indices, _, _ = quantise_bounded(part, prediction, step, bound)
        scales = fit_scales(part - prediction, step)
        bits = context_bits(indices, scale_classes(scales, _shape3(part)))
        bits += _BITS_PER_KERNEL * len(signs) if signs is not None else 0
        if best is None or bits < best[0]:
            best = bits, mode, gains
    assert best is not None
    return best[1], best[2]


def _signs(mode: Mode, x: Vector) -> Integers | None:
    if mode not in _OF_KERNELS:
        return None
    kernels = x.reshape(x.shape[0] * x.shape[1], -1)
    if mode is Mode.PAPER_KERNELS:
        return majority_signs(kernels)
    return kernel_signs(kernels)


def _gains(mode: Mode, x: Vector, history: History, signs: Integers | None) -> Gains:
    if mode is Mode.NONE:
        return _NO_GAINS
    if mode is Mode.SCALED_PREVIOUS:
        return fit_pair(x, history.previous, widen(history.average))
    return fit_gain(x, _shape(mode, history, signs)), np.float32(0)
