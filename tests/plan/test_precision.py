"""How fine uploads and published models are, and less of few bytes."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.plan.precision import (
    DOWNLOAD_ERROR,
    SMALL_DOWNLOAD_ERROR,
    SMALL_UPLOAD_ERROR,
    UPLOAD_ERROR,
    step_sigmas,
    upload_error,
)


@pytest.mark.parametrize(
    ("elements", "error"), [(50_000, SMALL_DOWNLOAD_ERROR), (10**6, DOWNLOAD_ERROR)]
)
def test_the_largest_step_has_the_largest_error(elements: int, error: float) -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    step = step_sigmas(elements) * x.std()
    left = x - step * np.rint(x / step)
    assert 0.85 * error < np.square(left).mean() < 1.02 * error


def test_published_models_do_not_drift_away() -> None:
    # What is left unpublished is part of what the next step is taken of.
    assert step_sigmas(10**9) < np.sqrt(12)


def test_small_models_are_nearly_exact() -> None:
    errors = [upload_error(n) for n in (0, 1, 2048, 4096, 50_000, 80_000, 10**7)]
    found = [4**-8, 4**-8, 4**-8, 4**-4, SMALL_UPLOAD_ERROR, UPLOAD_ERROR, UPLOAD_ERROR]
    assert errors == pytest.approx(found)
