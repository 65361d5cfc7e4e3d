"""From a plan's ratio to a rate in bits per parameter. Ours, not the paper's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .columns import Floats
from .errors import PlanError


def rate_for(
    drop_fraction: ArrayLike,
    *,
    base_rate: float,
    spread: float,
    theta_min: float = 0.1,
    theta_max: float = 0.6,
) -> Floats:
    """Return the rate that takes a ratio's place in a codec whose target is a rate.

    With ``x = (theta - theta_min) / (theta_max - theta_min)``, clipped to 0 to 1::

        rate = base_rate * spread ** (1 - 2 x) / m
        m = (spread - 1 / spread) / (2 ln spread)

    The logarithm of the rate is linear in the ratio, so that equal steps in rank
    change the rate by equal factors and no device's rate reaches 0. `m` is the mean of
    ``spread ** (1 - 2 x)`` for evenly spread ``x``: ranks are evenly spread, so the
    mean rate over all devices is `base_rate`, whatever the spread.

    Parameters
    ----------
    drop_fraction : array of float, shape (n,)
        Ratios; what lies outside the two bounds counts as the nearer one.
    base_rate : float
        Mean rate over devices, bits per parameter, above 0.
    spread : float
        Square root of the largest rate over the smallest, 1 or more; 1: all alike.
    theta_min, theta_max : float
        Ratios that get the largest and the smallest rate. For downloads `theta_min`
        is 0. If they are equal, all get `base_rate`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Bits per parameter, above 0.

    Raises
    ------
    PlanError
        If a value is out of range.
    """
    if not 0 < base_rate < math.inf:
        raise PlanError(f"base_rate is {base_rate}; give bits per parameter above 0")
    if not 1 <= spread < math.inf:
        raise PlanError(f"spread is {spread}; give 1 or more")
    if not 0 <= theta_min <= theta_max <= 1:
        raise PlanError(f"ratios {theta_min} to {theta_max} are no range of fractions")
    theta = np.asarray(drop_fraction, np.float64)
    if np.isnan(theta).any():
        raise PlanError("a drop_fraction is not a number")
    width = theta_max - theta_min
    if spread == 1 or width == 0:
        return np.full(theta.shape, float(base_rate))
    place = np.clip((theta - theta_min) / width, 0, 1)
    mean = (spread - 1 / spread) / (2 * math.log(spread))
    return np.asarray(base_rate / mean * spread ** (1 - 2 * place), np.float64)
