"""16-bit floats move by numbers, exactly and cheaply."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.coding.halves import decode_halves, encode_halves
from flwr_caesar.codec.published.lattice_model import (
    decode_model,
    encode_model,
    publish_model,
)

from ..strategies import bits

KINDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@given(
    words=st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=40),
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**32),
)
def test_any_bits_lead_to_any_other(words, kind, seed):
    """Also of NaN, infinity and both zeros."""
    rng = np.random.default_rng(seed)
    new = {
        "a": np.array(words, np.uint16).view(KINDS[kind]),
        "same": np.ones((2, 3), KINDS[kind]),
        "b": rng.normal(size=(3, 2)).astype(KINDS[kind]),
    }
    old = {
        "a": rng.permutation(new["a"].view(np.uint16)).view(KINDS[kind]),
        "same": new["same"],
        "b": (new["b"] * KINDS[kind](1.01)).astype(KINDS[kind]),
    }
    specs = Layout.of(new).tensors
    data = encode_halves(new, old, specs)
    found = decode_halves(data, old, specs)
    assert all(bits(found[name]) == bits(new[name]) for name in new)
    for bad in (b"", data[:1], data[:-1], data[:1] + b"\2" + data[2:], data + b"\0"):
        with pytest.raises(CodecError):
            decode_halves(bad, old, specs)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_step_of_training_costs_few_bits(kind):
    """Plain and byte-shuffled, the exclusive or takes five times as many or more."""
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.05, (300, 400))
    old = {"w": w.astype(KINDS[kind]), "frozen": w.astype(KINDS[kind])}
    step = 2.0 ** (-12 if kind == "float16" else -9) * np.abs(w)
    new = {**old, "w": (w + step * rng.normal(size=w.shape)).astype(KINDS[kind])}
    a = publish_model(old, None, -8)
    b = publish_model(new, a, -8)
    frame = encode_model(b, a)
    assert 8 * len(frame) / w.size < 2.0
    found = decode_model(frame, a.arrays())
    assert all(bits(found[name]) == bits(new[name]) for name in new)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_patch_of_few_changed_elements_is_fifty_times_shorter(kind):
    """2 % of the elements moved to the next number or a few further."""
    rng = np.random.default_rng(0)
    shapes = {"wte": (500, 600), "lora_A": (8, 1000), "lora_B": (1000, 8)}
    old, new = {}, {}
    for name, shape in shapes.items():
        old[name] = rng.normal(0, 0.02, shape).astype(KINDS[kind])
        words = old[name].copy().view(np.int16)
        where = rng.random(shape) < 0.02
        far = rng.choice([-1, 1], shape) * rng.geometric(0.5, shape)
        new[name] = (words + where * far).astype(np.int16).view(KINDS[kind])
    a = publish_model(old, None, -8)
    b = publish_model(new, a, -8)
    frame = encode_model(b, a)
    assert 50 * len(frame) < sum(array.nbytes for array in new.values())
    assert 50 * len(frame) < len(encode_model(b))
    found = decode_model(frame, a.arrays())
    assert all(bits(found[name]) == bits(new[name]) for name in new)
