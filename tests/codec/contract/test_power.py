"""Products with powers of two are those of ``np.ldexp``, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.contract.power import times_power


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_is_that_of_ldexp(dtype):
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    x = np.concatenate(
        [
            rng.integers(-(1 << 31), 1 << 31, 500).astype(dtype),
            np.ldexp(rng.normal(size=500), rng.integers(-150, 120, 500)).astype(dtype),
            np.array([0, -0.0, np.nan, np.inf, -np.inf, info.max, info.tiny], dtype),
            np.array([info.smallest_subnormal, 3 * info.smallest_subnormal], dtype),
        ]
    )
    for exponent in (*range(-160, 161), -1080, 1030):
        with np.errstate(over="ignore", under="ignore"):
            expected = np.ldexp(x, exponent)
            found = times_power(x, exponent)
            out = x.copy()
            assert times_power(out, exponent, out=out) is out
        assert found.dtype == dtype
        assert found.tobytes() == expected.tobytes() == out.tobytes()
