"""The Walsh-Hadamard transform is the matrix that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.quantisers.hadamard import hadamard


@pytest.mark.parametrize("log2", [0, 1, 5, 6, 7, 10, 13])
def test_hadamard_is_the_sylvester_matrix(log2: int) -> None:
    n = 1 << log2
    rng = np.random.default_rng(log2)
    x = rng.integers(-8, 8, n).astype(np.float32)
    y = hadamard(x)
    for i in rng.integers(0, n, 5):
        signs = [(-1) ** int(i & j).bit_count() for j in range(n)]
        assert y[i] == np.dot(signs, x.astype(np.int64))
    np.testing.assert_array_equal(hadamard(y), n * x)
