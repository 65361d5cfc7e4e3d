"""Batch sizes with which devices of unequal speed finish together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, Ints, floats, positive
from .errors import PlanError


def communication_seconds(
    bytes_down: ArrayLike,
    bytes_up: ArrayLike,
    *,
    down_bytes_per_second: ArrayLike,
    up_bytes_per_second: ArrayLike,
) -> Floats:
    """Return seconds each device spends on its download and its upload.

    Parameters
    ----------
    bytes_down, bytes_up : array of float, shape (n,), or scalar
        Bytes that will really be sent: lengths of frames, not a formula.
    down_bytes_per_second, up_bytes_per_second : array of float, shape (n,), or scalar
        Bandwidths.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    PlanError
        If a number of bytes is negative or a bandwidth not above 0.
    """
    down = floats("bytes_down", bytes_down) / positive(
        "down_bytes_per_second", down_bytes_per_second
    )
    up = floats("bytes_up", bytes_up) / positive(
        "up_bytes_per_second", up_bytes_per_second
    )
    return np.atleast_1d(down + up)


def round_seconds(
    batch_size: ArrayLike,
    *,
    local_steps: int,
    seconds_per_sample: ArrayLike,
    comm_seconds: ArrayLike,
) -> Floats:
    """Return the paper's time of a round, ``M = comm + tau * b * mu``.

    Parameters
    ----------
    batch_size : array of int, shape (n,), or scalar
        Samples ``b`` in a step.
    local_steps : int
        Steps ``tau`` in a round.
    seconds_per_sample : array of float, shape (n,), or scalar
        Seconds ``mu`` to train on one sample once.
    comm_seconds : array of float, shape (n,), or scalar
        From `communication_seconds`.

    Returns
    -------
    ndarray of float64, shape (n,)

    References
    ----------
    Caesar, arXiv 2412.19989, with the bytes of real frames in place of
    ``(1 - theta) Q``.
    """
    compute = local_steps * np.asarray(batch_size) * np.asarray(seconds_per_sample)
    return np.atleast_1d(np.asarray(comm_seconds) + compute).astype(np.float64)


def batch_sizes(
    *,
    seconds_per_sample: ArrayLike,
    comm_seconds: ArrayLike,
    local_steps: int,
    max_batch: int,
    min_batch: int = 1,
) -> Ints:
    """Return the batch size of each device, so that all finish with the fastest.

    The leader ``l`` is the device whose round at `max_batch` is shortest, the first of
    several. It gets `max_batch`; the others ``b = floor((M_l - comm) / (tau * mu))``,
    not below `min_batch` or above `max_batch`. One whose communication alone takes
    longer than the leader's round gets `min_batch` and is waited for. Among three or
    more, one that claims to be more than twice as fast as any other does not lead: what
    a device says of its own speed moves the pace by a rank, from the fastest of the
    others to the second, or to twice as fast as the fastest at the most.

    Parameters
    ----------
    seconds_per_sample : array of float, shape (n,)
        Seconds ``mu`` to train on one sample once, above 0.
    comm_seconds : array of float, shape (n,)
        Seconds of download and upload, see `communication_seconds`.
    local_steps : int
        Steps ``tau`` in a round, the same for all.
    max_batch, min_batch : int
        Largest and smallest size. Batch normalisation wants a `min_batch` of 8 or so.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    PlanError
        If a value is out of range or the columns differ in length.

    References
    ----------
    Caesar, arXiv 2412.19989: greedy batch-size optimisation.
    """
    if local_steps < 1:
        raise PlanError(f"local_steps is {local_steps}; give 1 or more")
    if not 1 <= min_batch <= max_batch:
        raise PlanError(
            f"batch sizes {min_batch} to {max_batch} are no range from 1 up"
        )
    mu = np.atleast_1d(positive("seconds_per_sample", seconds_per_sample))
    comm = np.atleast_1d(floats("comm_seconds", comm_seconds))
    if mu.shape != comm.shape or mu.ndim != 1:
        raise PlanError("seconds_per_sample and comm_seconds differ in length")
    if not len(mu):
        return np.zeros(0, np.int64)
    at_most = comm + local_steps * max_batch * mu
    leader = _leader(at_most)
    fitted = fitting_batch(
        at_most[leader] - comm,
        local_steps * mu,
        min_batch=min_batch,
        max_batch=max_batch,
    )
    fitted[leader] = max_batch
    return fitted


def _leader(seconds: Floats) -> int:
    first, *others = np.argsort(seconds, kind="stable")[:2].tolist()
    far_ahead = len(seconds) > 2 and 2 * seconds[first] < seconds[others[0]]
    return int(others[0] if far_ahead else first)


def fitting_batch(
    seconds: Floats, seconds_per_unit: Floats, *, min_batch: int, max_batch: int
) -> Ints:
    """Return the largest batch that fits into `seconds`, within the two bounds.

    Parameters
    ----------
    seconds : ndarray of float64, shape (n,)
        Time for all steps; may be negative.
    seconds_per_unit : ndarray of float64, shape (n,)
        Seconds of all steps at batch size 1, above 0.
    min_batch, max_batch : int
        Bounds.

    Returns
    -------
    ndarray of int64, shape (n,)
        A quotient within 1e-9 below an integer counts as that integer.
    """
    quotient = np.clip(seconds / seconds_per_unit, min_batch, max_batch)
    return np.asarray(np.floor(quotient * (1 + 1e-9)), np.int64).clip(
        min_batch, max_batch
    )
