"""How fine uploads and published models are: a model lags little behind plain training.

What a device leaves out of its update it sends later, under error feedback. Of a
direction in which it moves again and again, an upload with the relative squared error
``q`` carries the part ``1 - q``, so ``q / (1 - q)`` of its updates are always on their
way, and what is on its way the model has not learnt. If devices took part `n` times
each in `t` rounds, the model is where plain training was ``t q / (n (1 - q))`` rounds
ago. That is kept at `LAG` of the rounds, half of it here, and half at the server, which
publishes later what rounding leaves of a model::

    q / (1 - q) = LAG / 2 * n     of an upload
    q / (1 - q) = LAG / 2 * t     of a published model

Nothing that devices say has a part in this, so none of them can change it.
"""

from __future__ import annotations

import math

LAG = 0.05
"""Part of the rounds that a model may be behind."""

COARSEST = 0.5
"""Largest relative squared error of an upload."""

LARGEST_STEP = 3.0
"""Largest step of a published model, in deviations of what changed."""

_FREE = (8.0, 1 << 14), (4.0, 3 << 13)


def upload_error(turns: float, elements: int) -> float:
    """Return the relative squared error that an upload may have.

    Parameters
    ----------
    turns : float
        How often a device took part in the mean, this time included; less than 1
        counts as 1.
    elements : int
        Floating-point elements of the model. A message costs some kilobytes whatever
        is in it, so the first kilobytes of a small model are free: two of them up to a
        byte an element, and three up to half a byte.

    Returns
    -------
    float
        Above 0, at most `COARSEST`.
    """
    free = max(min(bits, most / max(elements, 1)) for bits, most in _FREE)
    return float(min(_error(turns), COARSEST, 4.0**-free))


def step_sigmas(rounds: float) -> float:
    """Return the step of a published model, in deviations of what changed.

    A step of `d` deviations has the relative squared error ``d^2 / 12``.

    Parameters
    ----------
    rounds : float
        That were trained, the last one included; less than 1 counts as 1.

    Returns
    -------
    float
        Above 0, at most `LARGEST_STEP`.
    """
    return min(math.sqrt(12 * _error(rounds)), LARGEST_STEP)


def _error(turns: float) -> float:
    behind = LAG / 2 * max(turns, 1.0)
    return behind / (1 + behind)
