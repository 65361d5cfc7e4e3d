"""Training evaluates a model at the very weights that its message carries."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from flwr_caesar.clients.quantisation import (  # noqa: E402
    clip_weights,
    quantised,
    quantised_weights,
    weights_of,
)
from flwr_caesar.clients.training import (  # noqa: E402
    evaluate,
    load_state_arrays,
    state_arrays,
    train,
)
from flwr_caesar.codec.codecs.prune import PruneCodec  # noqa: E402
from flwr_caesar.codec.quantisers.weights import dequantize_weights, quantize_weights  # noqa: E402

FORMATS = [(bits, "uniform") for bits in range(1, 9)]
FORMATS += [(bits, "power_of_two") for bits in (2, 3, 4, 8)]
every_format = pytest.mark.parametrize(("bits", "levels"), FORMATS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 2)
    )


def examples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1, 4, 4)).astype(np.float32)
    return x, (x.sum((1, 2, 3)) > 0).astype(np.int64)


@every_format
@given(st.integers(0, 2**32), st.sampled_from([1e-42, 1e-3, 1.0, 1e37]))
def test_torch_and_the_codec_have_the_same_levels(bits, levels, seed, scale):
    rng = np.random.default_rng(seed)
    x = (scale * rng.laplace(0, 1, 50)).astype(np.float32)
    x[:5] = 0
    expected = dequantize_weights(*quantize_weights(x, bits, levels), bits, levels)
    found = quantised(torch.from_numpy(x), bits, levels).numpy()
    np.testing.assert_array_equal(found, expected)


@every_format
def test_zeros_and_no_elements(bits, levels):
    assert not quantised(torch.zeros(3, 2), bits, levels).any()
    assert quantised(torch.zeros(0, 2), bits, levels).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype):
    assert quantised(torch.ones(2, 3, dtype=dtype), 4).dtype == dtype


def test_kernels_are_quantised_and_biases_and_norms_are_not():
    model = network()
    assert [id(p) for p in weights_of(model)] == [
        id(model[0].weight),
        id(model[3].weight),
    ]


@every_format
def test_the_gradient_passes_straight_through_the_levels(bits, levels):
    model = network()
    x, y = (torch.from_numpy(a) for a in examples())
    at_levels = copy.deepcopy(model)
    with torch.no_grad():
        for weight in weights_of(at_levels):
            weight.copy_(quantised(weight, bits, levels))
    nn.functional.cross_entropy(at_levels(x), y).backward()
    with quantised_weights(model, bits, levels):
        nn.functional.cross_entropy(model(x), y).backward()
    for own, other in zip(model.parameters(), at_levels.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)


@every_format
def test_the_message_is_the_model_that_was_evaluated(bits, levels):
    model = network()
    x, y = examples()
    options = {"weight_bits": bits, "weight_levels": levels}
    train(model, x, y, epochs=3, batch_size=8, lr=0.1, **options)
    trained = state_arrays(model)
    expected = evaluate(model, x, y, **options)
    codec = PruneCodec(prune_rate=0, bits=bits, levels=levels)
    decoded, _ = codec.decode(codec.encode(trained)[0])
    load_state_arrays(model, decoded)
    assert evaluate(model, x, y) == expected
    assert evaluate(model, x, y, **options) == expected
    assert any((trained[name] != decoded[name]).any() for name in trained)


def test_many_bits_train_almost_as_floats_and_few_do_not():
    x, y = examples()

    def weights(bits):
        model = network()
        train(model, x, y, epochs=2, batch_size=8, lr=0.1, weight_bits=bits)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    distance = {bits: float((weights(bits) - weights(None)).norm()) for bits in (8, 2)}
    assert 0 < distance[8] < 0.02
    assert distance[8] < distance[2] / 5


def test_one_bit_keeps_weights_within_one():
    x, y = examples()
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(100)
    bias = model[3].bias
    with torch.no_grad():
        bias.fill_(7)
    train(model, x, y, steps=1, batch_size=8, lr=1e-6, weight_bits=1)
    assert float(model[3].weight.detach().abs().max()) == 1
    assert float(bias.detach().min()) > 6
    clip_weights(model)
    assert float(bias.detach().min()) > 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_bits": 0}, "weight_bits"),
        ({"weight_bits": 9}, "weight_bits"),
        ({"weight_bits": 4, "weight_levels": "log"}, "weight_levels"),
    ],
)
def test_an_unknown_format_is_named(options, words):
    x, y = examples()
    with pytest.raises(ValueError, match=words):
        train(network(), x, y, epochs=1, batch_size=8, lr=0.1, **options)
    with pytest.raises(ValueError, match=words):
        evaluate(network(), x, y, **options)
