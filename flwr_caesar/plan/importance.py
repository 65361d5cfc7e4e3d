"""How much a device's data matters, and how precise its upload is for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats, floats
from .errors import PlanError


def label_divergence(histograms: ArrayLike, pooled: ArrayLike) -> Floats:
    """Return ``KL(Phi_i || Phi_0)`` of each device's labels, in nats.

    Parameters
    ----------
    histograms : array of float, shape (n, classes)
        Each device's counts (or fractions) of labels; a row must not be all 0.
    pooled : array of float, shape (classes,)
        The same over all devices that revealed theirs.

    Returns
    -------
    ndarray of float64, shape (n,)
        0 for a device whose labels are distributed as the pooled ones; infinite for
        one that has a label which the pool has not.

    Raises
    ------
    PlanError
        If a count is negative, or a row or the pool is empty.
    """
    counts = np.atleast_2d(floats("histograms", histograms))
    pool = floats("pooled", pooled)
    if counts.shape[1:] != pool.shape:
        raise PlanError("histograms and pooled differ in the number of classes")
    sizes = counts.sum(axis=1)
    if not (sizes > 0).all() or not pool.sum() > 0:
        raise PlanError("a label histogram without any sample has no distribution")
    own = counts / sizes[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(own > 0, own * np.log(own / (pool / pool.sum())), 0.0)
    return np.asarray(np.maximum(terms.sum(axis=1), 0.0), np.float64)


def importance(
    volumes: ArrayLike,
    divergences: ArrayLike,
    *,
    max_volume: float | None = None,
    volume_weight: float = 0.5,
) -> Floats:
    """Return ``C_i = lam * n_i / max n + (1 - lam) * exp(-D_i)``, 0 to 1.

    A device that declined to reveal its labels has only the first term, at full
    weight: ``C_i = n_i / max n``.

    Parameters
    ----------
    volumes : array of float, shape (n,)
        Samples ``n_i`` each device holds.
    divergences : array of float, shape (n,)
        ``D_i`` from `label_divergence`; NaN for a device that declined.
    max_volume : float, optional
        ``max n`` over all known devices; over `volumes`, if not given.
    volume_weight : float
        ``lam``, 0 to 1: what volume weighs against labels.

    Returns
    -------
    ndarray of float64, shape (n,)
        1 is most important. All 0 if nobody holds a sample.

    Raises
    ------
    PlanError
        If a value is out of range.

    Notes
    -----
    The paper combines volume and divergence; how it maps a divergence to an importance
    is not published, and ``exp(-D)`` is ours.

    References
    ----------
    Caesar, arXiv 2412.19989: importance-aware upload compression.
    """
    if not 0 <= volume_weight <= 1:
        raise PlanError(f"volume_weight is {volume_weight}; give a fraction, 0 to 1")
    n = floats("volumes", volumes)
    divergence = np.asarray(divergences, np.float64)
    if divergence.shape != n.shape:
        raise PlanError("volumes and divergences differ in length")
    if (divergence < 0).any():
        raise PlanError("a divergence is negative")
    largest = float(n.max(initial=0.0)) if max_volume is None else max_volume
    volume = n / largest if largest > 0 else np.zeros_like(n)
    both = volume_weight * volume + (1 - volume_weight) * np.exp(-divergence)
    return np.asarray(np.where(np.isnan(divergence), volume, both), np.float64)


def rank(scores: ArrayLike) -> Floats:
    """Return ranks by importance, 1 for the most important.

    Parameters
    ----------
    scores : array of float, shape (n,)
        From `importance`, of all known devices.

    Returns
    -------
    ndarray of float64, shape (n,)
        1 to ``n``. Devices of one score share the mean of their places, so equal
        devices are treated alike and the mean over all stays ``(n + 1) / 2``.
    """
    score = np.asarray(scores, np.float64)
    return rank_among(score, np.sort(score))


def rank_among(scores: Floats, ascending: Floats) -> Floats:
    """Return the ranks of `scores` within all scores, given in ascending order."""
    below = np.searchsorted(ascending, scores, side="left")
    not_above = np.searchsorted(ascending, scores, side="right")
    return len(ascending) - (below + not_above - 1) / 2


def rank_among_more(ranks: Floats, known: int, count: int) -> Floats:
    """Return the ranks to expect among `count` devices, of which `known` are ranked.

    ``rank (count + 1) / (known + 1)``: each of the others is as likely to stand
    between any two of the known ones, or at either end. One device alone has the
    middle rank.
    """
    return np.asarray(ranks * ((count + 1) / (known + 1)), np.float64)


def upload_ratio(
    ranks: ArrayLike, count: int, *, theta_min: float = 0.1, theta_max: float = 0.6
) -> Floats:
    """Return ``theta_min + (theta_max - theta_min) * rank / N``, the paper's Eq. (10).

    Parameters
    ----------
    ranks : array of float, shape (n,)
        From `rank`, 1 to `count`.
    count : int
        All devices ``N``.
    theta_min, theta_max : float
        Smallest and largest ratio, 0 to 1.

    Returns
    -------
    ndarray of float64, shape (n,)
        Fraction of the update's elements that are dropped; larger is less precise.

    Raises
    ------
    PlanError
        If a value is out of range.
    """
    if not 0 <= theta_min <= theta_max <= 1:
        raise PlanError(f"ratios {theta_min} to {theta_max} are no range of fractions")
    places = np.asarray(ranks, np.float64)
    if places.size and not 1 <= places.min() <= places.max() <= count:
        raise PlanError(f"ranks must be 1 to {count}, the number of devices")
    return theta_min + (theta_max - theta_min) / max(count, 1) * places
