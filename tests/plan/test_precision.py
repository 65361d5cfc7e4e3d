"""How fine uploads and published models are: one error both ways, less of few bytes."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.plan.precision import ERROR, STEP_SIGMAS, upload_error


def test_a_step_has_the_error_of_an_upload() -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    step = STEP_SIGMAS * x.std()
    left = x - step * np.rint(x / step)
    assert np.square(left).mean() == pytest.approx(ERROR, rel=0.02)


def test_small_models_are_nearly_exact() -> None:
    errors = [upload_error(n) for n in (0, 1, 2048, 4096, 20_000, 10**7)]
    assert errors == pytest.approx([4**-8, 4**-8, 4**-8, 4**-4, 4**-1.2288, ERROR])
