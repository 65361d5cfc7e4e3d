"""How precise a download is, from how long a device has been away."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, Ints
from .errors import PlanError

NEVER = 0


def staleness(last_round: ArrayLike, server_round: int) -> Ints:
    """Return rounds since each device took part, ``delta = t - r``.

    Parameters
    ----------
    last_round : array of int, shape (n,)
        Last round ``r`` in which each took part; `NEVER` (0) if it never did, which
        makes its staleness ``t``.
    server_round : int
        The current round ``t``, counted from 1.

    Raises
    ------
    PlanError
        If the round is below 1, or a device took part after it.
    """
    _check(server_round)
    last = np.asarray(last_round, np.int64)
    if last.size and not 0 <= last.min() <= last.max() <= server_round:
        raise PlanError(f"last rounds must be 0 to {server_round}, the current one")
    return server_round - last


def download_ratio(
    staleness: ArrayLike,
    server_round: int,
    *,
    theta_max: float = 0.6,
    holds_model: ArrayLike | None = None,
) -> Floats:
    """Return ``theta = (1 - delta / t) * theta_max`` for each device.

    Parameters
    ----------
    staleness : array of int, shape (n,)
        Rounds ``delta`` since each took part, ``t`` if never. What lies beyond ``t``
        counts as ``t``.
    server_round : int
        The current round ``t``, counted from 1.
    theta_max : float
        Largest ratio, 0 to 1.
    holds_model : array of bool, shape (n,), optional
        Whether each device has a model of its own to recover from, as far as is known;
        all, if not given.

    Returns
    -------
    ndarray of float64, shape (n,)
        Fraction of the elements sent as one bit, 0 to `theta_max`; larger is less
        precise. 0, the whole model, in round 1, for a device that never took part,
        and for one that lost its model.

    Raises
    ------
    PlanError
        If the round is below 1, `theta_max` is no fraction, or a staleness is negative.

    References
    ----------
    Caesar, arXiv 2412.19989: staleness-aware download compression.
    """
    _check(server_round)
    if not 0 <= theta_max <= 1:
        raise PlanError(f"theta_max is {theta_max}; give a fraction, 0 to 1")
    delta = np.asarray(staleness, np.float64)
    if not (delta >= 0).all():
        raise PlanError("staleness must be 0 or more rounds")
    ratio = (1 - np.minimum(delta / server_round, 1)) * theta_max
    if holds_model is not None:
        ratio = np.where(np.asarray(holds_model, np.bool_), ratio, 0.0)
    return np.asarray(ratio, np.float64)


def _check(server_round: int) -> None:
    if server_round < 1:
        raise PlanError(f"round {server_round}: rounds are counted from 1")
