"""Devices that share one compressed model, so that the server makes few of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flwr_caesar.frozen import frozen

from .columns import Floats, Ints, floats
from .errors import PlanError

RULES = ("precise", "mean")

_MAX_POINTS = 1024


@frozen
class Clusters:
    """Which devices share a ratio.

    Parameters
    ----------
    assignment : ndarray of int64, shape (n,)
        Cluster of each device, 0 to ``k - 1``.
    ratios : ndarray of float64, shape (k,)
        Ratio of each cluster, most precise (smallest) first.
    """

    assignment: Ints
    ratios: Floats

    @property
    def device_ratios(self) -> Floats:
        """The ratio each device gets, shape (n,)."""
        return self.ratios[self.assignment]


def cluster(
    ratios: ArrayLike, *, max_clusters: int = 4, rule: str = "precise"
) -> Clusters:
    """Group devices of near ratios; each group gets one ratio.

    Groups have the least sum of squared distances to their means that `max_clusters`
    groups can have (optimal k-means in one dimension). A ratio is affine in staleness,
    so grouping by ratio is grouping by staleness, except that devices which lost their
    model stand with those that never had one: all at ratio 0. They need the whole
    model, are a group of their own, and come on top of `max_clusters`.

    Parameters
    ----------
    ratios : array of float, shape (n,)
        From `flwr_caesar.plan.staleness.download_ratio`.
    max_clusters : int
        Compressed models made in a round at most, 1 or more. More: each device nearer
        to its own ratio, more work for the server.
    rule : str
        A group's ratio. ``"precise"``: of its stalest device, so that nobody gets a
        model less precise than its own ratio asks for; ``"mean"``: their mean, with
        about the traffic of ratios of their own.

    Returns
    -------
    Clusters
        Of at most ``max_clusters + 1`` ratios; of none for no device.

    Raises
    ------
    PlanError
        If `max_clusters` is below 1, the rule is unknown, or a ratio is negative.

    Notes
    -----
    Exact for up to 1,024 distinct ratios; more are first merged into 1,024 bins of
    equal width. The paper does not say how it groups or which ratio a group gets; both
    are ours.

    References
    ----------
    Wang and Song (2011), "Ckmeans.1d.dp: Optimal k-means clustering in one dimension by
    dynamic programming".
    """
    if max_clusters < 1:
        raise PlanError(f"max_clusters is {max_clusters}; give 1 or more")
    if rule not in RULES:
        raise PlanError(f"rule {rule!r} is none of {', '.join(RULES)}")
    theta = floats("ratios", ratios)
    assignment = np.zeros(len(theta), np.int64)
    compressed = theta > 0
    whole = not compressed.all()
    if compressed.any():
        found = _optimal(theta[compressed], max_clusters)
        assignment[compressed] = found + whole
    count = int(assignment.max()) + 1 if len(theta) else 0
    if rule == "mean":
        sums = np.bincount(assignment, weights=theta, minlength=count)
        shared = sums / np.bincount(assignment, minlength=count)
    else:
        shared = np.full(count, np.inf)
        np.minimum.at(shared, assignment, theta)
    return Clusters(assignment, shared)


def _optimal(values: Floats, max_clusters: int) -> Ints:
    points, member, weights = np.unique(
        _binned(values), return_inverse=True, return_counts=True
    )
    labels = _segments(points, weights.astype(np.float64), max_clusters)
    return labels[member]


def _binned(values: Floats) -> Floats:
    if len(np.unique(values)) <= _MAX_POINTS:
        return values
    low, high = values.min(), values.max()
    bins = np.floor((values - low) * (_MAX_POINTS / (high - low)))
    return np.asarray(np.minimum(bins, _MAX_POINTS - 1), np.float64)


def _segments(points: Floats, weights: Floats, max_clusters: int) -> Ints:
    """Return the segment of each of the sorted points, least total squared distance."""
    count = len(points)
    clusters = min(max_clusters, count)
    centred = points - np.average(points, weights=weights)
    zero = np.zeros(1)
    n = np.concatenate([zero, np.cumsum(weights)])
    s = np.concatenate([zero, np.cumsum(weights * centred)])
    q = np.concatenate([zero, np.cumsum(weights * centred**2)])
    first, stop = np.ogrid[:count, 1 : count + 1]
    size = np.where(first < stop, n[stop] - n[first], 1.0)
    cost = q[stop] - q[first] - (s[stop] - s[first]) ** 2 / size
    cost = np.where(first < stop, np.maximum(cost, 0), np.inf)

    best = cost[0]
    starts = []
    for _ in range(1, clusters):
        total = np.full((count, count), np.inf)
        total[1:] = best[:-1, None] + cost[1:]
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    labels = np.zeros(count, np.int64)
    end = count
    for label in range(clusters - 1, 0, -1):
        begin = int(starts[label - 1][end - 1])
        labels[begin:end] = label
        end = begin
    return labels
