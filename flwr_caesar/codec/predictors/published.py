"""The predictors of the error-bounded paper: a normalised average, and whose signs.

A magnitude ``P = |M s + m|``: `M` averages the z-scores of a tensor's magnitudes over
rounds, `m` and `s` are the mean and deviation of the magnitudes of this round. Its sign
is one of each kernel whose elements mostly agree, or that of the last reconstruction.

All but the statistics are element-wise float32 operations on values that both sides
have; the statistics are the encoder's and travel in the frame.

References
----------
Ye et al. (2025), arXiv:2511.05770, with the faults of its code mended as
docs/error-bounded.md says.
"""

from __future__ import annotations

import numpy as np

from ..coding.integers import Integers
from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.vector import Vector
from .predict import MIN_KERNEL, Gains, Mode, as_gain

RATE, REST = np.float32(0.07), np.float32(0.93)
CONSISTENCY = 0.5
"""Least score of a kernel, ``2 (share of the majority - 1/2)``."""
AGREEMENT = 0.7
"""Least share of signs that are as in the last round, or that all flipped."""

AUTO = "auto"
FORCED = ("paper", "paper_kernels")
MODES: dict[str, tuple[Mode, ...]] = {
    AUTO: (Mode.NONE, Mode.SCALED_PREVIOUS, Mode.OSCILLATION, Mode.KERNEL_SIGNS),
    "none": (Mode.NONE,),
    "signed": (Mode.NONE, Mode.SCALED_PREVIOUS),
    "paper": (Mode.NONE, Mode.PAPER_KERNELS, Mode.PAPER_OSCILLATION),
    "paper_kernels": (Mode.NONE, Mode.PAPER_KERNELS),
    "all": tuple(mode for mode in Mode if mode is not Mode.RAW),
}
"""The modes that each value of the codec's `predictor` may take."""

Statistics = tuple[np.float32, np.float32]


def check_predictor(predictor: str) -> None:
    """Refuse an unknown set of predictors.

    Raises
    ------
    CodecError
        With the names that there are.
    """
    if predictor not in MODES:
        raise CodecError(
            f"error_bounded: predictor must be one of {', '.join(MODES)}, "
            f"not {predictor!r}"
        )


def needs_scores(predictor: str) -> bool:
    """Whether both sides have to remember z-scores."""
    return Mode.PAPER_KERNELS in MODES[predictor]


def statistics(x: Vector) -> Statistics:
    """Return mean and deviation of the magnitudes of a tensor."""
    magnitude = np.abs(x)
    return (
        np.float32(magnitude.mean(dtype=np.float64)),
        np.float32(magnitude.std(dtype=np.float64)),
    )


def advance_scores(
    scores: Vector | None, reconstruction: Vector, about: Statistics
) -> Vector:
    """Return ``0.93 M + 0.07 z``, ``z`` the z-score of each magnitude.

    Parameters
    ----------
    scores : ndarray of float32 or None
        ``M``; 0 before the first round.
    reconstruction : ndarray of float32
        Decoded values.
    about : tuple of float32
        Mean and deviation of their magnitudes, as the frame says; where the deviation
        is 0, so is ``z``.
    """
    mean, deviation = about
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(reconstruction)
        moved -= mean
        if deviation > 0:
            moved /= deviation
        else:
            moved[...] = 0
        moved *= RATE
        if scores is not None:
            moved += scores * REST
    return moved


def published_gains(mode: Mode, x: Vector, step: np.float32, *, flips: bool) -> Gains:
    """Return mean and deviation of the magnitudes in steps, as float16.

    The sign of the first says whether `Mode.PAPER_OSCILLATION` flips signs.
    """
    mean, deviation = statistics(x)
    m = as_gain(float(mean) / float(step))
    if mode is Mode.PAPER_OSCILLATION and flips:
        m = -m
    return m, as_gain(float(deviation) / float(step))


def published_prediction(
    mode: Mode,
    gains: Gains,
    step: np.float32,
    scores: Vector,
    previous: Vector,
    signs: Array | None,
) -> Vector:
    """Return ``|M s + m| step`` with the signs of a mode.

    Parameters
    ----------
    mode : Mode
        One of the paper's two.
    gains : tuple of float32
        From `published_gains`.
    step : float32
        Quantiser step.
    scores, previous : ndarray of float32, shape (outputs, inputs, positions)
        ``M``, and the last reconstruction.
    signs : ndarray of int32, shape (kernels,), optional
        -1, 0 or 1 for each kernel.
    """
    prediction = scores * gains[1]
    prediction += abs(gains[0])
    np.abs(prediction, out=prediction)
    prediction *= step
    if mode is Mode.PAPER_KERNELS:
        assert signs is not None
        kernels = signs.reshape(scores.shape[:2]).astype(np.float32)
        prediction *= kernels[:, :, None]
        return prediction
    np.copysign(prediction, previous, out=prediction)
    if np.signbit(gains[0]):
        np.negative(prediction, out=prediction)
    return prediction


def majority_signs(x: Vector) -> Integers:
    """Return the sign of each kernel whose signs mostly agree, else 0.

    A zero counts for the majority, and for plus where there is none.

    Parameters
    ----------
    x : ndarray of float32, shape (kernels, size)
        One convolution kernel a row.

    Returns
    -------
    ndarray of int32, shape (kernels,)
        -1, 0 or 1.
    """
    positive = (x > 0).sum(axis=1)
    negative = (x < 0).sum(axis=1)
    most = x.shape[1] - np.minimum(positive, negative)
    agrees = 2 * (most / x.shape[1] - 0.5) >= CONSISTENCY
    signs: Integers = np.where(positive >= negative, 1, -1).astype(np.int32)
    signs *= agrees
    return signs


def agreement(x: Vector, previous: Vector, bound: float) -> float:
    """Return the share of elements beyond the bound whose sign is that of before.

    One half where there are none.
    """
    counted = np.abs(x) > bound
    count = int(np.count_nonzero(counted))
    if not count:
        return 0.5
    same = np.sign(x) == np.sign(previous)
    return int(np.count_nonzero(same & counted)) / count


def published_mode(predictor: str, x: Vector, share: float) -> Mode:
    """Return the mode that the paper takes for a tensor, whatever it costs.

    Parameters
    ----------
    predictor : {"paper", "paper_kernels"}
        With or without the oscillation of signs.
    x : ndarray of float32, shape (outputs, inputs, positions)
        The tensor; one whose kernels have fewer than 4 elements is not predicted.
    share : float
        Its `agreement` with the last round.
    """
    if x.shape[2] < MIN_KERNEL or x.shape[0] * x.shape[1] < 2:
        return Mode.NONE
    if predictor == "paper" and max(share, 1 - share) >= AGREEMENT:
        return Mode.PAPER_OSCILLATION
    return Mode.PAPER_KERNELS
