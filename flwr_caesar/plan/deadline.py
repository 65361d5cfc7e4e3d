"""The best rate and batch size of each device, given seconds a round."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flwr_caesar.frozen import frozen

from .columns import Floats, Ints, Mask, check_range, floats, positive
from .errors import PlanError


@frozen
class DeadlinePlan:
    """What each device does in a round that closes at a deadline.

    Parameters
    ----------
    batch_sizes : ndarray of int64, shape (n,)
        Samples in a step.
    rates : ndarray of float64, shape (n,)
        Bits per parameter of the upload.
    seconds : ndarray of float64, shape (n,)
        Expected time of its round.
    fits : ndarray of bool, shape (n,)
        Whether that is within the deadline. Where it is not, the batch and the rate are
        the smallest, and the caller may leave the device out.
    """

    batch_sizes: Ints
    rates: Floats
    seconds: Floats
    fits: Mask


def fit_deadline(
    deadline: float,
    *,
    fixed_seconds: ArrayLike,
    seconds_per_sample: ArrayLike,
    up_bytes_per_second: ArrayLike,
    parameters: int,
    local_steps: int,
    max_batch: int,
    max_rate: ArrayLike,
    min_batch: int = 1,
    min_rate: float = 0.05,
    compute_weight: float = 0.5,
) -> DeadlinePlan:
    """Choose batch size and upload rate of each device, so that it ends in time.

    Each device gets the batch size ``b`` (an integer) and rate ``r`` within bounds of
    the greatest utility::

        w log(b) + (1 - w) log(r)
        fixed + tau * b * mu + parameters * r / (8 * B_up) <= deadline

    that is, without bounds, the fraction `w` of the time left is spent on training and
    the rest on the upload; where one is at its bound, the other gets what it leaves.
    The utility is ours: as much again of either is worth the same wherever it starts,
    so neither is given up for the other.

    Parameters
    ----------
    deadline : float
        Seconds a round, above 0.
    fixed_seconds : array of float, shape (n,)
        Seconds of what is not chosen here: the download and the upload's overhead.
    seconds_per_sample : array of float, shape (n,)
        Seconds ``mu`` to train on one sample once, above 0.
    up_bytes_per_second : array of float, shape (n,)
        Bandwidth ``B_up``, above 0.
    parameters : int
        Parameters of the model.
    local_steps : int
        Steps ``tau``.
    max_batch, min_batch : int
        Bounds of the batch size.
    max_rate : array of float, shape (n,), or scalar
        Most bits per parameter: the rate that the plan of importance gives each device.
    min_rate : float
        Fewest bits per parameter, for all.
    compute_weight : float
        ``w``, 0 to 1. 1: the batch first, the rate from what is left; 0: the reverse.

    Returns
    -------
    DeadlinePlan

    Raises
    ------
    PlanError
        If a value is out of range or the columns differ in length.
    """
    if not 0 < deadline < float("inf"):
        raise PlanError(f"deadline is {deadline}; give seconds above 0")
    if local_steps < 1 or parameters < 1:
        raise PlanError("local_steps and parameters must be 1 or more")
    if not 0 <= compute_weight <= 1:
        raise PlanError(f"compute_weight is {compute_weight}; give a fraction, 0 to 1")
    check_range("batch sizes", min_batch, max_batch, least=1)
    most = positive("max_rate", max_rate)
    check_range("rates", min_rate, float(most.min(initial=min_rate)))
    positive("min_rate", min_rate)
    try:
        slack, per_unit, per_bit, most = np.broadcast_arrays(
            deadline - np.atleast_1d(floats("fixed_seconds", fixed_seconds)),
            local_steps * positive("seconds_per_sample", seconds_per_sample),
            parameters / 8 / positive("up_bytes_per_second", up_bytes_per_second),
            most,
        )
    except ValueError as error:
        raise PlanError("the columns of devices differ in length") from error

    fits = min_batch * per_unit + min_rate * per_bit <= slack
    wanted = np.maximum(compute_weight * slack, slack - most * per_bit)
    wanted = np.minimum(wanted, slack - min_rate * per_bit) / per_unit
    lower = np.floor(np.clip(wanted, min_batch, max_batch))
    batches = np.stack([lower, np.minimum(lower + 1, max_batch)])
    rates = np.minimum((slack - batches * per_unit) / per_bit, most)
    utility = np.where(
        rates >= min_rate,
        compute_weight * np.log(batches)
        + (1 - compute_weight) * np.log(np.maximum(rates, min_rate)),
        -np.inf,
    )
    better = utility[1] > utility[0]
    batch = np.where(fits, np.where(better, batches[1], batches[0]), min_batch)
    rate = np.where(fits, np.where(better, rates[1], rates[0]), min_rate)
    rate = np.maximum(rate, min_rate)
    seconds = deadline - slack + batch * per_unit + rate * per_bit
    return DeadlinePlan(batch.astype(np.int64), rate, seconds, fits)
