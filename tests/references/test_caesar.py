"""Caesar, arXiv:2412.19989: signs and maxima down, the largest elements up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flwr_caesar.strategies import Caesar

from .federation import Scheduled, assert_same, largest, models_of, start, trained

THETA_MAX, UPLOAD_MIN, UPLOAD_MAX = 0.6, 0.1, 0.6
SCHEDULE = [[1, 2, 3], [1, 2], [1], [1, 2, 3], [2, 3], [1, 3]]


def recovered(w: Any, stale: Any, theta: float) -> Any:
    """Return what a device makes of a model of which `theta` are signs."""
    count = w.size - math.floor(round(theta * w.size, 6))
    exact = largest(w, count) != 0
    others = np.abs(w[~exact])
    mean, most = others.mean(), others.max()
    sign = np.where(w >= 0, 1.0, -1.0)
    fits = (np.where(stale >= 0, 1.0, -1.0) == sign) & (np.abs(stale) <= most)
    return np.where(exact, w, np.where(fits, stale, sign * mean))


def upload_ratio(volumes: dict[int, int], node: int, devices: int) -> float:
    """Return ``min + (max - min) rank / N``; volumes alone rank, as none has labels."""
    known = len(volumes)
    if not known:
        return (UPLOAD_MIN + UPLOAD_MAX) / 2
    rank = (known + 1) / 2
    if node in volumes:
        rank = 1 + sum(other > volumes[node] for other in volumes.values())
    rank *= (devices + 1) / (known + 1)
    return UPLOAD_MIN + (UPLOAD_MAX - UPLOAD_MIN) * rank / devices


def reference(devices: int) -> list[dict[str, Any]]:
    w = {name: array.astype(np.float64) for name, array in start().items()}
    last: dict[int, int] = {}
    stale: dict[int, dict[str, Any]] = {}
    volumes: dict[int, int] = {}
    models = []
    for t, nodes in enumerate(SCHEDULE, 1):
        sent = []
        for node in nodes:
            begun = dict(w)
            if node in last:
                theta = (1 - (t - last[node]) / t) * THETA_MAX
                if theta > 0:
                    begun = {n: recovered(w[n], stale[node][n], theta) for n in w}
            ended = trained(begun, node, 5)
            keep = round(1 - upload_ratio(volumes, node, devices), 6)
            sent.append(
                {
                    n: largest(ended[n] - begun[n], math.ceil(keep * w[n].size))
                    for n in w
                }
            )
            stale[node] = ended
        for node in nodes:
            last[node], volumes[node] = t, 10 * node
        w = {n: w[n] + np.mean([update[n] for update in sent], axis=0) for n in w}
        models.append(w)
    return models


def test_a_federation_is_the_papers_step_by_step() -> None:
    strategy = Caesar(
        Scheduled(SCHEDULE), codec="paper", exact_below=100, ask_labels=False
    )
    found = models_of(strategy, 3, len(SCHEDULE))
    assert_same(found, reference(3))
