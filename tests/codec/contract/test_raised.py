"""A variance never turns negative: on the device, on the server, published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    apply,
    difference,
    get_codec,
    inspect_frame,
)
from flwr_caesar.codec.contract.frame import RAISED
from flwr_caesar.codec.contract.update import keep_sign, nonnegative

from ..strategies import bits

CONFIGS = [
    {"id": "lattice", "rate": 0.3, "exact_below": 0, "fine_below": 1024},
    {"id": "lattice", "rate": 0.3, "exact_below": 0},
    {"id": "topk", "values": "float16", "exact_below": 0},
    {"id": "error_bounded", "rel": 0.1, "exact_below": 0},
    {"id": "correlation", "exact_below": 0},
    {"id": "signs", "exact_below": 0},
    {"id": "rotated", "bits": 1, "exact_below": 0},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_sum_turns_negative_where_the_trained_model_has_none(config, dtype):
    """Running variances, some of them of constant features, under error feedback."""
    rng = np.random.default_rng(0)
    true = {
        "var": np.abs(rng.normal(size=2000)).astype(dtype),
        "w": rng.normal(size=2000).astype(dtype),
    }
    true["var"][::3] = 1
    server = dict(true)
    codec = get_codec(config)
    sender = receiver = None
    left: dict[str, np.ndarray] = {}
    flags = 0
    for _ in range(12):
        trained = {
            "var": (0.7 * server["var"]).astype(dtype),
            "w": server["w"] + rng.normal(size=2000).astype(dtype),
        }
        trained["var"][1::3] = 0
        total = difference(trained, server)
        total = {name: x + left.get(name, 0) for name, x in total.items()}
        known = sender or CodecState(Layout.of(total))
        frame, told, sender = codec.encode_decoded(
            total, known, base=server, nonnegative=nonnegative(trained)
        )
        flags |= inspect_frame(frame).flags
        decoded, receiver = codec.decode(frame, receiver or known, base=server)
        assert all(bits(decoded[n]) == bits(told[n]) for n in decoded)
        left = {name: total[name] - told[name] for name in total}
        server = apply(server, decoded)
        assert (server["var"] >= 0).all()
        assert (server["w"] < 0).any()
    exact = config["id"] == "error_bounded" and dtype == "float64"
    assert flags & RAISED or exact or config["id"] == "signs"


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=30),
    st.integers(0, 2**32),
)
def test_a_tensor_that_has_negative_elements_is_left_alone(values, seed):
    trained = {"w": np.array(values, np.float32)}
    rng = np.random.default_rng(seed)
    base = {"w": rng.normal(size=len(values)).astype(np.float32)}
    update = difference(trained, base)
    codec = get_codec({"id": "lattice", "rate": 0.05, "exact_below": 0})
    frame, told, _ = codec.encode_decoded(
        update, base=base, nonnegative=nonnegative(trained)
    )
    plain, without, _ = codec.encode_decoded(update)
    if min(values) < 0:
        assert frame == plain
    decoded, _ = codec.decode(frame, base=base)
    assert bits(decoded["w"]) == bits(told["w"])
    after = apply(base, decoded)["w"]
    assert min(values) < 0 or (after >= 0).all()
    if inspect_frame(frame).flags & RAISED:
        assert (without["w"] + base["w"] < 0).any()
        with pytest.raises(CodecError, match="not at hand"):
            codec.decode(frame)
        for other in ({}, {"w": np.zeros(99, "f4")}, {"w": np.zeros(len(values), int)}):
            with pytest.raises(CodecError):
                codec.decode(frame, base=other)


def test_which_tensors_have_no_negative_elements():
    model = {
        "var": np.array([0.0, 2], np.float32),
        "zero": np.zeros(3),
        "mixed": np.array([-1e-30, 2], np.float32),
        "none": np.zeros((0, 3), np.float32),
        "nan": np.array([np.nan, 1]),
        "count": np.array(5),
    }
    assert nonnegative(model) == {"var", "zero"}


def test_a_sign_is_kept_without_touching_the_callers():
    model = {"var": np.array([-1e-12, 2], np.float32), "w": np.array([-1.0, 1])}
    before = {name: array.copy() for name, array in model.items()}
    found = keep_sign(model, {"var"})
    np.testing.assert_array_equal(found["var"], np.array([0, 2], np.float32))
    assert found["w"] is model["w"]
    assert all(bits(model[n]) == bits(before[n]) for n in model)
    assert found["var"].dtype == np.float32
