"""What is no number stays in a model to the bit; what is new is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    apply,
    difference,
    get_codec,
)
from flwr_caesar.codec.contract.non_finite import (
    require_none_new,
    with_non_finite,
    without_non_finite,
)
from flwr_caesar.codec.published.lattice_model import (
    ModelPoint,
    decode_model,
    encode_model,
    publish_model,
)
from flwr_caesar.codec.published.publication import PointHistory

from ..strategies import bits

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def kind(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def masked(dtype="float32", seed=0):
    """Return a causal mask, a buffer with NaN, and weights."""
    rng = np.random.default_rng(seed)
    mask = np.triu(np.full((40, 40), -np.inf), 1)
    return {
        "w": rng.normal(size=(50, 50)).astype(kind(dtype)),
        "mask": mask.astype(kind(dtype)),
        "seen": np.array([np.nan, np.inf, 1.5], kind(dtype)),
        "steps": np.array(3),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "config",
    [
        {"id": "dense"},
        {"id": "caesar_model"},
        {"id": "prune"},
        {"id": "prune", "bits": 4, "exclude_1d": False},
        {"id": "lattice", "rate": 4.0, "exact_below": 0},
        {"id": "cast"},
        {"id": "error_bounded"},
    ],
    ids=lambda config: config["id"],
)
def test_a_model_keeps_them_in_every_codec(config, dtype):
    model, codec = masked(dtype), get_codec(config)
    with pytest.raises(CodecError, match="'mask'"):
        codec.encode(model)
    for state in (None, CodecState(Layout.of(model))):
        frame, told, _ = codec.encode_decoded(model, state, finite=False)
        assert frame == codec.encode(model, state, finite=False)[0]
        with pytest.raises(CodecError, match="NaN or infinity"):
            codec.decode(frame, state)
        decoded, _ = codec.decode(frame, state, finite=False)
        assert list(decoded) == list(model)
        for name, array in model.items():
            assert bits(decoded[name]) == bits(told[name])
            if name != "w":
                assert bits(decoded[name]) == bits(array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_published_model_keeps_them_for_next_to_nothing(dtype):
    model = masked(dtype)
    history = PointHistory.start(model, shared=True)
    first = history.current
    sizes = []
    for seed in range(1, 4):
        base = history.current
        history = history.publish({**model, "w": masked(dtype, seed)["w"]})
        frame = history.frame(base.digest)
        found = decode_model(frame, base.arrays())
        assert all(bits(found[n]) == bits(history.current.arrays()[n]) for n in model)
        assert bits(found["mask"]) == bits(model["mask"])
        sizes.append(len(frame))
    bare = PointHistory.start({"w": model["w"]})
    alone = bare.publish({"w": masked(dtype, 1)["w"]})
    assert sizes[0] < len(alone.frame(bare.current.digest)) + 200
    again = PointHistory.from_arrays(history.to_arrays())
    assert again.frame(first.digest) == history.frame(first.digest)
    whole = decode_model(history.frame(None))
    assert all(bits(whole[n]) == bits(history.current.arrays()[n]) for n in model)


def test_a_tensor_may_become_a_number_and_cease_to_be_one():
    values = [np.inf, 3.0, -np.inf, 1e30, 1e-35, 0.0, 2.0]
    before: ModelPoint | None = None
    for value in values:
        model = {"w": np.full(2000, value, np.float32), "v": np.ones(9, np.float32)}
        point = publish_model(model, before, -8)
        held = point.arrays()
        np.testing.assert_array_equal(held["w"], model["w"])
        whole = decode_model(encode_model(point))
        assert bits(whole["w"]) == bits(held["w"])
        if before is not None:
            found = decode_model(encode_model(point, before), before.arrays())
            assert bits(found["w"]) == bits(held["w"])
        again = ModelPoint.of(held, point.exponents)
        assert again.digest == point.digest
        before = point


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_finite_and_leaves_them(dtype):
    old = masked(dtype)
    new = {**old, "w": masked(dtype, 1)["w"]}
    update = difference(new, old)
    assert all(np.isfinite(update[name].astype(float)).all() for name in old)
    assert not update["mask"].any()
    after = apply(old, update)
    for name in ("mask", "seen", "steps"):
        assert bits(after[name]) == bits(old[name])
    moved = {name: array + array.dtype.type(0.5) for name, array in update.items()}
    kept = np.isinf(old["mask"].astype(float))
    assert (apply(old, moved)["mask"][~kept] == 0.5).all()


def test_an_element_that_becomes_a_number_is_sent_as_it_is():
    old = {"low": np.array([np.inf, -np.inf, np.nan, 1], np.float32)}
    new = {"low": np.array([0.25, 0, -3, 2], np.float32)}
    after = apply(old, difference(new, old))["low"]
    np.testing.assert_allclose(after, new["low"], atol=1e-37)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_new_ones_are_refused_by_name(value):
    old = masked()
    new = {name: np.array(array) for name, array in old.items()}
    new["w"][3, 3] = value
    for refuse in (difference, require_none_new, without_non_finite):
        with pytest.raises(CodecError, match="'w' holds NaN"):
            refuse(new, old)
        refuse(old, old)
    other = {**old, "mask": -old["mask"]}
    with pytest.raises(CodecError, match="'mask' holds NaN"):
        difference(other, old)


def test_differences_beyond_the_range_are_the_largest():
    top = np.finfo(np.float32).max
    old, new = {"w": np.array([-top, 1], "f4")}, {"w": np.array([top, 2], "f4")}
    np.testing.assert_array_equal(difference(new, old)["w"], [top, 1])


def test_a_model_without_them_and_with_them_again():
    model, before = masked("float32", 1), masked()
    bare = without_non_finite(model, before)
    assert all(np.isfinite(array.astype(float)).all() for array in bare.values())
    again = with_non_finite(bare, before)
    assert all(bits(again[name]) == bits(model[name]) for name in model)
    became = {**bare, "seen": np.array([2, 0, 1.5], np.float32)}
    found = with_non_finite(became, before)["seen"]
    np.testing.assert_array_equal(found, np.array([2, np.inf, 1.5], np.float32))


def test_float64_beyond_float32_is_sent_as_it_is():
    x = {"w": np.full(2000, 1e200), "v": np.ones(2000)}
    for config in ("topk", "lattice", "correlation", "signs"):
        codec = get_codec({"id": config, "exact_below": 0})
        frame, told, _ = codec.encode_decoded(x)
        decoded, _ = codec.decode(frame)
        assert bits(decoded["w"]) == bits(told["w"]) == bits(x["w"])


def test_sections_that_lie_are_refused():
    model = masked()
    codec = get_codec("dense")
    frame, _ = codec.encode(model, finite=False)
    from flwr_caesar.codec.conformance.mutate import Parts, seal

    (place,) = [i for i, e in enumerate(Parts.of(frame).entries) if e[0] == b"ASIS"]
    count = np.array([2], "<u4").tobytes()
    for data in (
        b"",
        count,
        np.array([2**32 - 1], "<u4").tobytes(),
        np.array([2, 1, 1], "<u4").tobytes() + model["mask"].tobytes(),
        np.array([1, 9], "<u4").tobytes() + model["mask"].tobytes(),
        np.array([1, 1], "<u4").tobytes() + model["mask"].tobytes()[:-1],
    ):
        parts = Parts.of(frame)
        parts.entries[place] = [b"ASIS", 0, len(data), len(data), data]
        with pytest.raises(CodecError):
            codec.decode(seal(parts.join()), finite=False)
