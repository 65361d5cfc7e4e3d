"""16-bit tensors on the lattice: exact, held by their type, no longer than float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout, inspect_frame
from flwr_caesar.codec.published import lattice_model
from flwr_caesar.codec.published.lattice_model import (
    LatticeRules,
    ModelPoint,
    decode_model,
    encode_model,
    publish_model,
)
from flwr_caesar.codec.published.model_point import _has_negative, _largest
from flwr_caesar.codec.published.model_steps import first_exponents
from flwr_caesar.codec.published.publication import PointHistory

from .test_lattice_model import same

Arrays = dict[str, np.ndarray[Any, Any]]
HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
RULES = LatticeRules(halves=True)


def walk(dtype: Any, by: float, rounds: int, seed: int = 0) -> list[Arrays]:
    """Return the models of some rounds, whose elements move at random."""
    rng = np.random.default_rng(seed)
    w = rng.normal(0, 0.05, (40, 90))
    models = []
    for _ in range(rounds):
        models.append(
            {"w": w.astype(dtype), "bias": w[0].astype(dtype), "n": np.int64([3])}
        )
        w = w + by * rng.normal(size=w.shape)
    return models


@settings(max_examples=30)
@given(
    dtype=st.sampled_from(sorted(HALVES)),
    exponents=st.lists(st.integers(-20, 1), min_size=2, max_size=5),
    by=st.sampled_from([1e-6, 1e-3, 1e-1, 10.0]),
    pair=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 10**6),
)
def test_any_version_leads_to_any_other_exactly(dtype, exponents, by, pair, seed):
    points: list[ModelPoint] = []
    models = walk(HALVES[dtype], by, len(exponents), seed)
    for w, exponent in zip(models, exponents, strict=True):
        points.append(publish_model(w, points[-1] if points else None, exponent, RULES))
    old, new = (points[i % len(points)] for i in pair)
    whole = decode_model(encode_model(new))
    assert same(whole, new.arrays())
    assert whole["w"].dtype == HALVES[dtype]
    assert same(decode_model(encode_model(new, old), old.arrays()), whole)
    assert ModelPoint.of(whole, new.exponents, RULES).digest == new.digest


@pytest.mark.parametrize("dtype", sorted(HALVES))
@pytest.mark.parametrize("exponent", [-18, -9, -4])
def test_an_element_is_within_half_a_step_and_its_types_precision(dtype, exponent):
    models = walk(HALVES[dtype], 1e-3, 3)
    before = None
    for w in models:
        before = publish_model(w, before, exponent, RULES)
        x, p = (a["w"].astype(np.float64) for a in (w, before.arrays()))
        ulp = np.spacing(np.maximum(np.abs(x), np.abs(p)).astype(HALVES[dtype]))
        assert (np.abs(x - p) <= 2.0 ** (exponent - 1) + ulp / 2).all()


def test_the_largest_numbers_of_float16_stay_finite():
    w = {"w": np.full(3000, 65504, np.float16) * np.float16(-1)}
    for exponent in (4, 6, 10, 16):
        point = publish_model(w, None, exponent, RULES)
        found = point.arrays()["w"]
        assert np.isfinite(found).all()
        assert same(decode_model(encode_model(point)), point.arrays())


@pytest.mark.parametrize("dtype", sorted(HALVES))
@pytest.mark.parametrize("by", [5e-3, 1e-3, 1e-4, 1e-5])
def test_no_frame_is_longer_than_that_of_float32(dtype, by):
    """By a tenth of the model to a five-thousandth, as a round of training does."""
    lengths = []
    for kind in (np.float32, HALVES[dtype]):
        first, *later = walk(kind, by, 6)
        history = PointHistory.start(first, rules=RULES.for_layout(Layout.of(first)))
        found = [len(history.frame(None))]
        for w in later:
            held = history.current.digest
            history = history.publish(w)
            found.append(len(history.frame(held)))
        lengths.append((found[0], sum(found[1:])))
    (wide_first, wide_later), (own_first, own_later) = lengths
    named = len(b',"halves":1')
    assert own_first <= wide_first + named
    assert own_later <= 1.01 * wide_later + 5 * named


def test_only_a_frame_that_has_such_tensors_says_so():
    w = walk(np.float32, 0, 1)[0]
    frame = encode_model(publish_model(w, None, -8, RULES.for_layout(Layout.of(w))))
    assert frame == encode_model(publish_model(w, None, -8))
    assert "halves" not in inspect_frame(frame).config
    half = walk(np.float16, 0, 1)[0]
    made = encode_model(publish_model(half, None, -8, RULES))
    assert inspect_frame(made).config["halves"] == 1
    few = LatticeRules(exact_below=10**6, halves=True)
    assert not few.for_layout(Layout.of(half)).halves


@pytest.mark.parametrize("value", [0, 2, "yes", True, None])
def test_another_value_of_the_parameter_is_refused(value, monkeypatch):
    point = publish_model(walk(np.float16, 0, 1)[0], None, -8, RULES)
    config = {"id": "lattice_model", "exact_below": 0, "halves": value}
    with monkeypatch.context() as patched:
        patched.setattr(lattice_model, "_config", lambda rules, **_: config)
        frame = encode_model(point)
    with pytest.raises(CodecError, match="expected lattice_model"):
        decode_model(frame)


def test_a_history_goes_on_after_a_restart_with_its_own_rules():
    models = walk(ml_dtypes.bfloat16, 1e-3, 4)
    for rules in (RULES, LatticeRules()):
        history = PointHistory.start(models[0], rules=rules).publish(models[1])
        state = history.to_arrays()
        assert len(state["grids"]) == (3 if rules.halves else 2)
        again = PointHistory.from_arrays(state)
        assert again.current.rules == rules
        a, b = history.publish(models[2]), again.publish(models[2])
        assert a.current.digest == b.current.digest
        for base in a.bases:
            assert a.frame(base) == b.frame(base)
    state["grids"] = np.array([0, 1024, 2])
    with pytest.raises(CodecError):
        PointHistory.from_arrays(state)


@pytest.mark.parametrize("dtype", sorted(HALVES))
@pytest.mark.parametrize("odd", [-np.inf, np.nan])
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_travels_as_it_is(dtype, odd):
    w = {"mask": np.array([odd, 0, 1], HALVES[dtype]), **walk(HALVES[dtype], 0, 1)[0]}
    point = publish_model(w, None, first_exponents(w, RULES), RULES)
    assert same(
        {"mask": decode_model(encode_model(point))["mask"]}, {"mask": w["mask"]}
    )


@pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("odd", [0.0, -0.0, np.nan, np.inf, -np.inf, -(2.0**-24), 3e4])
def test_magnitudes_and_signs_are_those_of_float32(dtype, odd):
    some = np.random.default_rng(1).random(70_000)
    for values in [], [odd], [*some, odd], [*-some, odd], [odd, 1], [odd, -1]:
        array = np.array(values, np.float32).astype(dtype)
        wide = array.astype(np.float32)
        largest = np.abs(wide).max(initial=0)
        assert np.array_equal(_largest(array), largest, equal_nan=True)
        if not np.isnan(largest):
            assert _has_negative(array) == (wide < 0).any()
