"""How far two runs of plain Flower are apart: what ours may be below it."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .app import App
from .run import plainly

SEEDS = range(3)
EXACT = 0.01
"""Of a score without noise: a hundredth of the way to a goal."""


@cache
def tolerance(app: App) -> float:
    """Return twice the standard deviation of the last model's score in plain Flower.

    That is the larger of two: the deviation of three seeds, and that of a share of
    `App.tested` examples, as if each were right with the same chance (with Laplace's
    correction, so that it is not 0 where all are).
    """
    scores = [plainly(app, seed).scores[-1] for seed in SEEDS]
    if not app.tested:
        return EXACT
    share = (np.mean(scores) * app.tested + 1) / (app.tested + 2)
    sampling = math.sqrt(share * (1 - share) / app.tested)
    return 2 * max(float(np.std(scores, ddof=1)), sampling)
