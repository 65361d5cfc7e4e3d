"""FedComLoc's compressors on tensors give what its codecs decode to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from flwr_caesar.clients.compressors import compressor, top_k  # noqa: E402
from flwr_caesar.codec import CodecError, get_codec  # noqa: E402

values = st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0, 3.0]), min_size=1)


def decoded(config, x):
    codec = get_codec(config)
    return codec.decode(codec.encode({"x": x})[0])[0]["x"]


@given(values, st.floats(0.01, 1))
def test_top_k_keeps_what_the_codec_keeps(elements, density):
    x = np.array(elements, np.float32)
    expected = decoded({"id": "topk", "density": density, "exact_below": 0}, x)
    found = top_k(torch.from_numpy(x), density)
    assert torch.equal(found, torch.from_numpy(expected))


@pytest.mark.parametrize("exact_below", [0, 10_000])
@pytest.mark.parametrize("kept", ["float32", "float16"])
def test_top_k_follows_every_setting_of_the_codec(exact_below, kept):
    config = {"id": "topk", "density": 0.1, "exact_below": exact_below, "values": kept}
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    tensor = torch.from_numpy(x.copy())
    found = compressor(config)(tensor).numpy()
    np.testing.assert_array_equal(found, decoded(config, x))
    np.testing.assert_array_equal(tensor, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("levels", [4, 16, 65536])
def test_rounding_is_to_the_codecs_levels_and_keeps_the_mean(norm, density, levels):
    config = {"id": "qsgd", "levels": levels, "norm": norm, "density": density}
    x = np.random.default_rng(1).laplace(0, 1, 2000).astype(np.float32)
    kept = top_k(torch.from_numpy(x), density).double()
    compress = compressor(config)
    draws = torch.stack([compress(torch.from_numpy(x)) for _ in range(200)]).double()
    scale = float(kept.abs().max() if norm == "linf" else kept.norm())
    integers = draws * levels / scale
    assert float((integers - integers.round()).abs().max()) < 0.01
    assert float((draws - kept).abs().max()) <= 1.001 * scale / levels
    codecs = torch.from_numpy(decoded(config, x)).double() * levels / scale
    assert float((codecs - codecs.round()).abs().max()) < 0.01
    y = kept.abs() * levels / scale
    variance = (y - y.floor()) * (1 - y + y.floor()) * (scale / levels) ** 2
    error = draws.mean(0) - kept
    # As for the codec: 5.3 deviations are exceeded with probability 1e-7.
    along = float(error @ kept / ((kept**2) @ variance / 200).sqrt())
    assert abs(along) < 5.3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_bucket_has_a_norm_of_its_own(norm):
    x = np.random.default_rng(1).laplace(0, 1, (10, 100)).astype(np.float32)
    x[:, 60:] *= 50
    config = {"id": "qsgd", "levels": 2, "norm": norm, "bucket": 60, "exact_below": 0}
    drawn = compressor(config)(torch.from_numpy(x)).numpy().ravel()
    codecs = decoded(config, x).ravel()
    for start in range(0, 1000, 60):
        run = x.ravel()[start : start + 60]
        norm_of_run = np.abs(run).max() if norm == "linf" else np.linalg.norm(run)
        for found in (drawn, codecs):
            level = found[start : start + 60] / norm_of_run * 2
            np.testing.assert_allclose(level, np.rint(level), atol=1e-4)


def test_what_is_on_a_level_stays_and_zeros_have_no_norm():
    compress = compressor({"id": "qsgd", "levels": 4, "exact_below": 0})
    x = torch.tensor([0.0, -1.0, 0.25, 0.5])
    assert torch.equal(compress(x), x)
    assert torch.equal(compress(0 * x), 0 * x)


def test_the_seed_names_the_draws():
    config = {"id": "qsgd", "levels": 1, "exact_below": 0}
    x = torch.linspace(0.1, 1, 50)
    a, b = compressor(config, seed=3), compressor(config, seed=3)
    first = a(x)
    assert torch.equal(first, b(x))
    assert not torch.equal(first, a(x))
    assert not torch.equal(first, compressor(config, seed=4)(x))


def test_the_dtype_stays():
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)
    for config in ({"id": "topk"}, {"id": "qsgd"}):
        found = compressor({**config, "exact_below": 0})(x)
        assert (found.dtype, found.shape) == (x.dtype, x.shape)


def test_other_codecs_are_refused():
    with pytest.raises(ValueError, match="signs"):
        compressor("signs")
    with pytest.raises(CodecError, match="density"):
        compressor({"id": "topk", "density": 0})
