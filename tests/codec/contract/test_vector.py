"""Tensors to one float32 vector and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.contract.vector import gather, in_layout_order, scatter

from ..strategies import Array, arrays, bits, models

narrow = models(arrays(st.sampled_from(["float16", "bfloat16", "float32"])))


@given(narrow)
def test_types_no_wider_than_float32_survive_exactly(model: dict[str, Array]) -> None:
    specs = Layout.of(model).tensors
    vector = gather(model, specs)
    assert vector.dtype == np.float32
    decoded = scatter(vector, specs)
    assert list(decoded) == list(model)
    for name, array in decoded.items():
        assert bits(array) == bits(model[name])


def test_the_vector_is_a_copy() -> None:
    model = {"a": np.ones(3, np.float32)}
    gather(model, Layout.of(model).tensors)[:] = 7
    assert (model["a"] == 1).all()


def test_float64_is_rounded_or_refused_by_name() -> None:
    specs = Layout.of({"a": np.zeros(1), "b": np.zeros(1)}).tensors
    assert gather({"a": np.array([0.1]), "b": np.zeros(1)}, specs)[0] == np.float32(0.1)
    with pytest.raises(CodecError, match="'b' exceeds"):
        gather({"a": np.zeros(1), "b": np.array([1e39])}, specs)


def test_order_is_the_layouts() -> None:
    model = {"b": np.zeros(1), "a": np.ones(2)}
    shuffled = dict(reversed(model.items()))
    assert list(in_layout_order(Layout.of(model), shuffled)) == ["b", "a"]
