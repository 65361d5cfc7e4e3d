"""`apply` undoes `difference`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout, apply, difference, update_layout
from flwr_caesar.codec.contract.layout import DTYPE_CODES, FLOAT_DTYPES

from ..strategies import Array, bits, models, numpy_dtype

EPSILON = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-53}


def values(dtype: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if dtype in FLOAT_DTYPES:
        return rng.normal(size=(4, 5)).astype(numpy_dtype(dtype))
    return rng.integers(0, 2, (4, 5)).astype(dtype)


@pytest.mark.parametrize(("new", "old"), list(itertools.product(DTYPE_CODES, repeat=2)))
def test_inverse_for_every_pair_of_dtypes(new: str, old: str) -> None:
    model, base = {"t": values(new, 1)}, {"t": values(old, 2)}
    update = difference(model, base)
    got = apply(base, update)["t"]
    if new not in FLOAT_DTYPES:
        assert bits(got) == bits(model["t"])
        return
    wide = "float64" if new == "float64" else "float32"
    assert update["t"].dtype.name == wide
    assert got.dtype.name == (old if old in FLOAT_DTYPES else wide)
    error = np.abs(got.astype(np.float64) - model["t"].astype(np.float64))
    largest = max(np.abs(model["t"]).max(), np.abs(base["t"]).max())
    step = max(EPSILON[wide], EPSILON.get(old, 0)) * 4
    assert error.max() <= step * float(largest)


@given(models())
def test_the_layout_of_an_update_is_known_beforehand(model: dict[str, Array]) -> None:
    update = difference(model, model)
    assert Layout.of(update) == update_layout(Layout.of(model))
    assert list(update) == list(model)
    for name, array in update.items():
        if model[name].dtype.name in FLOAT_DTYPES:
            assert not array.any()


@given(st.integers(0, 2**32))
def test_nothing_of_the_callers_changes(seed: int) -> None:
    old, new = {"t": values("float32", seed)}, {"t": values("float32", seed + 1)}
    before = bits(old["t"]), bits(new["t"])
    apply(old, difference(new, old))["t"] += 1
    assert (bits(old["t"]), bits(new["t"])) == before


def test_other_tensors_are_refused_by_name() -> None:
    a = np.zeros(3, np.float32)
    for function in (difference, apply):
        with pytest.raises(CodecError, match="'b' is in one"):
            function({"a": a, "b": a}, {"a": a})
        with pytest.raises(CodecError, match="'a' has shape"):
            function({"a": a}, {"a": a.reshape(3, 1)})
