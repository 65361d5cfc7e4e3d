"""`lattice` and published points: exact integers, targets met."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    ErrorFeedback,
    StateMismatchError,
    get_codec,
)
from flwr_caesar.codec.contract.layout import TensorSpec
from flwr_caesar.codec.published.lattice_point import (
    LatticePoint,
    decode_point,
    difference,
    encode_point,
    publish,
)
from flwr_caesar.codec.quantisers.step_search import Step

SPECS = [TensorSpec("a", "float32", (8, 5, 3, 3)), TensorSpec("b", "float32", (40,))]
SIZE = 400


def update(seed=0, n=300):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(n, 1)))
    return {
        "w": (scale * rng.laplace(size=(n, n))).astype(np.float32) * np.float32(1e-3),
        "b": rng.normal(size=n).astype(np.float32),
    }


def nmse(x, xhat):
    return float(((x - xhat) ** 2).sum() / (x**2).sum())


@pytest.mark.parametrize("rate", [0.3, 1.0, 3.0])
def test_rate_is_met(rate):
    x = update()
    frame, _ = get_codec({"id": "lattice", "rate": rate}).encode(x)
    bits = 8 * (len(frame) - x["b"].nbytes) / x["w"].size
    assert 0.85 * rate < bits < 1.1 * rate


@pytest.mark.parametrize("target", [0.5, 0.1, 0.01])
def test_error_is_met(target):
    x, codec = update(), get_codec({"id": "lattice", "nmse": target})
    xhat, _ = codec.decode(codec.encode(x)[0])
    assert 0.85 * target < nmse(x["w"], xhat["w"]) < 1.1 * target


def test_step_is_met_and_values_are_on_the_grid():
    x = update()
    codec = get_codec({"id": "lattice", "step": 2.0**-12})
    xhat, _ = codec.decode(codec.encode(x)[0])
    multiples = xhat["w"].astype(np.float64) * 2**12
    assert (multiples == np.rint(multiples)).all()
    assert np.abs(x["w"] - xhat["w"]).max() <= 2.0**-12


def test_a_rate_is_on_a_power_of_two_grid():
    x, codec = update(), get_codec("lattice")
    values = codec.decode(codec.encode(x)[0])[0]["w"].astype(np.float64)
    smallest = np.abs(values[values != 0]).min()
    step = Step.near(float(smallest))
    multiples = values / 2.0**step.exponent
    assert step.value == smallest
    assert (multiples == np.rint(multiples)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(2000,), (1500, 1), (1, 1500), (9, 8, 7, 3)])
def test_dtypes_and_shapes(dtype, shape):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    x = {"w": np.random.default_rng(0).normal(size=shape).astype(kind)}
    codec = get_codec({"id": "lattice", "rate": 4.0})
    xhat, _ = codec.decode(codec.encode(x)[0])
    assert xhat["w"].dtype == kind
    assert nmse(x["w"].astype(float), xhat["w"].astype(float)) < 0.1


@pytest.mark.parametrize("value", [0.0, 1e-20, 1.0, 1e20])
def test_constant_tensors(value):
    x = {"w": np.full((40, 40), value, np.float32)}
    codec = get_codec({"id": "lattice", "rate": 4.0})
    xhat, _ = codec.decode(codec.encode(x)[0])
    assert np.abs(x["w"] - xhat["w"]).max() <= 0.3 * value


def test_error_feedback_conserves_the_sum():
    codec = ErrorFeedback(get_codec({"id": "lattice", "rate": 0.5}))
    state = None
    sent = given_ = 0.0
    for t in range(10):
        x = update(t, 64)
        frame, after = codec.encode(x, state)
        xhat, _ = codec.decode(frame, state or CodecState(after.layout))
        state = after
        given_ = given_ + x["w"].astype(np.float64)
        sent = sent + xhat["w"].astype(np.float64)
    left = sent + state.private["w"] - given_
    assert np.abs(left).max() <= 1e-6 * np.abs(given_).max()


def test_a_fifth_of_top_k_at_its_error():
    """At the error of top-k 10 % in float32."""
    x = update(n=500)
    topk = get_codec({"id": "topk", "density": 0.1})
    frame, _ = topk.encode(x)
    error = nmse(x["w"], topk.decode(frame)[0]["w"])
    ours = get_codec({"id": "lattice", "nmse": error})
    mine, _ = ours.encode(x)
    assert nmse(x["w"], ours.decode(mine)[0]["w"]) < 1.05 * error
    assert len(mine) <= len(frame) / 5


def test_small_tensors_cost_a_byte_and_next_to_no_error():
    x = update()
    x["b"] *= np.float32(1e-3)
    base = {"id": "lattice", "rate": 1.0}
    exact, _ = get_codec(base).encode(x)
    codec = get_codec({**base, "exact_below": 0, "fine_below": 1024})
    fine, _ = codec.encode(x)
    saved = (len(exact) - len(fine)) / x["b"].size
    assert saved > 2.5
    xhat = codec.decode(fine)[0]
    assert nmse(x["b"], xhat["b"]) < 1e-3
    whole = get_codec(base).decode(exact)[0]
    assert (xhat["w"] == whole["w"]).all()


def test_a_default_that_came_later_is_not_in_the_configuration():
    assert "fine_below" not in get_codec({"id": "lattice", "fine_below": 0}).config
    later = {"fine_below": 9, "dead_zone": 0.5, "compact": True, "memory": True}
    later["rank"] = 1
    codec = get_codec({"id": "lattice", "exact_below": 0, **later})
    assert later.items() <= codec.config.items()
    assert codec.parameters == {k: v for k, v in codec.config.items() if k != "id"}


@pytest.mark.parametrize("target", [{"nmse": 0.2}, {"rate": 1.0}, {"step": 0.01}])
def test_rounding_to_nearest_leaves_out_at_most_half_a_step(target):
    rng = np.random.default_rng(3)
    x = {"w": (rng.laplace(size=(200, 300)) * 0.02).astype(np.float32)}
    codec = get_codec({"id": "lattice", "exact_below": 0, "dead_zone": 0.5, **target})
    xhat = codec.decode(codec.encode(x)[0])[0]["w"]
    step = np.abs(xhat[xhat != 0]).min()
    assert np.abs(x["w"] - xhat).max() <= step / 2 * (1 + 1e-5)
    error = nmse(x["w"], xhat)
    if "nmse" in target:
        assert 0.6 * target["nmse"] < error <= 1.02 * target["nmse"]


@pytest.mark.parametrize("dead_zone", [0.4, 1.1, -0.5, float("nan")])
def test_a_dead_zone_that_is_none_is_refused(dead_zone):
    with pytest.raises(CodecError, match="dead_zone"):
        get_codec({"id": "lattice", "dead_zone": dead_zone})


def test_encoding_is_deterministic():
    x, codec = update(), get_codec("lattice")
    assert codec.encode(x)[0] == codec.encode(x)[0]


@settings(max_examples=30, deadline=None)
@given(
    exponents=st.lists(st.integers(-16, -2), min_size=2, max_size=7),
    seed=st.integers(0, 10**6),
    pair=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
def test_differences_are_exact_across_versions_and_steps(exponents, seed, pair):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=SIZE).astype(np.float32)
    points: list[LatticePoint] = []
    for exponent in exponents:
        points.append(publish(w, points[-1] if points else None, exponent))
        assert np.abs(w - points[-1].values()).max() <= 2.0 ** (exponent - 1) + 1e-6
        w = w + np.float32(0.05) * rng.normal(size=SIZE).astype(np.float32)
    old, new = points[pair[0] % len(points)], points[pair[1] % len(points)]
    gap, exponent = difference(new, old)
    exact = [
        int(a) * 2**40 >> -new.exponent for a in new.indices
    ]  # multiples of 2^-40, in plain integers
    start = [int(a) * 2**40 >> -old.exponent for a in old.indices]
    moved = [int(a) * 2**40 >> -exponent for a in gap]
    assert [a + b for a, b in zip(start, moved, strict=True)] == exact
    found = decode_point(encode_point(new, old, SPECS), old, SPECS)
    assert found.exponent == new.exponent
    assert (found.indices == new.indices).all()
    whole = decode_point(encode_point(new, None, SPECS), None, SPECS)
    assert whole.digest == new.digest


def test_same_version_costs_next_to_nothing():
    point = publish(np.random.default_rng(0).normal(size=SIZE), None, -8)
    assert len(encode_point(point, point, SPECS)) < 200


def test_coarse_steps_on_a_fine_grid_cost_as_coarse_ones():
    rng = np.random.default_rng(1)
    w = rng.normal(size=SIZE).astype(np.float32)
    fine = publish(w, None, -16)
    coarse = publish(w + rng.normal(size=SIZE).astype(np.float32), fine, -3)
    _, exponent = difference(coarse, fine)
    assert coarse.exponent == -16
    assert exponent >= -3


def test_wrong_base_is_refused():
    w = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    a = publish(w, None, -8)
    b = publish(w * np.float32(1.1), a, -8)
    data = encode_point(b, a, SPECS)
    for base in (None, b):
        with pytest.raises(StateMismatchError):
            decode_point(data, base, SPECS)


def test_too_small_a_step_is_refused():
    with pytest.raises(CodecError, match="coarsen"):
        publish(np.full(4, 1e6, np.float32), None, -40)


def test_a_step_too_coarse_for_the_grid_is_refused():
    before = publish(np.full(4, 2.0**-36, np.float32), None, -40)
    with pytest.raises(CodecError, match="coarsen"):
        publish(np.full(4, 2.0**24, np.float32), before, 0)


def test_mutated_points_are_refused():
    w = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    a = publish(w, None, -8)
    data = encode_point(publish(w * np.float32(1.1), a, -9), a, SPECS)
    rng = np.random.default_rng(2)
    for _ in range(500):
        bad = bytearray(data)
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        try:
            found = decode_point(bytes(bad), a, SPECS)
        except CodecError:
            continue
        assert found.digest == decode_point(data, a, SPECS).digest


@pytest.mark.parametrize(
    "parameters",
    [
        {"rate": 0},
        {"nmse": 1},
        {"step": -1.0},
        {"exact_below": -1},
        {"fine_below": 1024},
        {"fine_below": -1},
    ],
)
def test_senseless_parameters_are_refused(parameters):
    with pytest.raises(CodecError):
        get_codec({"id": "lattice", **parameters})
