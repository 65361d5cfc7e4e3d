"""Published models as frames: exact to the bit, whatever base, step and dtype."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout, StateMismatchError, inspect_frame
from flwr_caesar.codec.conformance.mutate import mutate
from flwr_caesar.codec.conformance.suite import sample_arrays
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published.lattice_model import (
    LatticeRules,
    ModelPoint,
    decode_model,
    encode_model,
    publish_model,
)

from ..strategies import bits

Arrays = dict[str, np.ndarray[Any, Any]]


def network(rng: np.random.Generator, scale: float = 0.05) -> Arrays:
    return {
        "conv.weight": rng.normal(0, scale, (16, 12, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, scale, 16).astype(np.float32),
        "bn.running_var": np.abs(rng.normal(0, 30, 16)).astype(np.float32),
        "bn.num_batches_tracked": np.array(int(rng.integers(99)), np.int64),
        "head": rng.normal(0, 2 * scale, (7, 160)),
        "scalar": np.array(rng.normal(), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "half": rng.normal(0, scale, (3, 5)).astype(np.float16),
        "mask": rng.random(9) < 0.5,
    }


def moved(model: Arrays, rng: np.random.Generator, by: float) -> Arrays:
    """Return the model after a step of training; variances stay positive."""
    found = {}
    for name, array in model.items():
        if array.dtype.kind != "f":
            found[name] = (array ^ (rng.random(array.shape) < 0.1)).astype(array.dtype)
            continue
        change = by * rng.normal(size=array.shape)
        value = np.abs(array + change) if "var" in name else array + change
        if array.dtype == np.float16:
            value = np.clip(value, -60_000, 60_000)
        found[name] = np.asarray(value).astype(array.dtype)
    return found


def same(a: Arrays, b: Arrays) -> bool:
    return list(a) == list(b) and all(bits(a[name]) == bits(b[name]) for name in a)


@settings(max_examples=40)
@given(
    exponents=st.lists(st.integers(-24, 1), min_size=2, max_size=6),
    seed=st.integers(0, 10**6),
    by=st.sampled_from([1e-6, 1e-2, 1.0, 1e4]),
    pair=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    exact_below=st.sampled_from([0, 20, 1500]),
)
def test_any_version_leads_to_any_other_exactly(exponents, seed, by, pair, exact_below):
    rng = np.random.default_rng(seed)
    rules, w = LatticeRules(exact_below), network(rng)
    points: list[ModelPoint] = []
    for exponent in exponents:
        points.append(publish_model(w, points[-1] if points else None, exponent, rules))
        w = moved(w, rng, by)
    old, new = (points[i % len(points)] for i in pair)
    whole = decode_model(encode_model(new))
    assert same(whole, new.arrays())
    assert same(decode_model(encode_model(new), expected=new.layout), whole)
    try:
        frame = encode_model(new, old)
    except CodecError:  # too far apart for 32 bits
        assert by == 1e4 or max(exponents) - min(exponents) > 7
        return
    assert "TABL" not in inspect_frame(frame).sections
    assert same(decode_model(frame, old.arrays()), whole)
    assert model_digest(whole) == new.digest
    assert ModelPoint.of(whole, new.exponents, rules).digest == new.digest


@settings(max_examples=40)
@given(
    exponents=st.lists(st.integers(-40, 12), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
    scales=st.lists(
        st.sampled_from([0, 1e-12, 1e-3, 1.0, 1e9]), min_size=5, max_size=5
    ),
)
def test_a_point_is_within_its_step_and_keeps_its_sign(exponents, seed, scales):
    rng = np.random.default_rng(seed)
    before = None
    for exponent, scale in zip(exponents, scales, strict=False):
        w = {
            "w": np.float32(scale) * rng.normal(size=1100).astype(np.float32),
            "var": np.float32(scale) * rng.random(5).astype(np.float32),
        }
        before = publish_model(w, before, exponent)
        arrays = before.arrays()
        for name, array in w.items():
            largest = float(np.abs(array).max())
            step = 2.0 ** max(exponent, np.frexp(largest)[1] - 22)
            error = np.abs(arrays[name].astype(np.float64) - array).max()
            assert error <= 0.501 * step
        assert (arrays["var"] >= 0).all()


def test_small_tensors_are_fine_relative_to_themselves():
    rng = np.random.default_rng(0)
    w = {
        "weight": rng.normal(size=(64, 64)).astype(np.float32),
        "bias": np.float32(1e-3) * rng.normal(size=64).astype(np.float32),
        "running_var": np.float32(3000) * rng.random(64).astype(np.float32),
    }
    arrays = publish_model(w, None, -4).arrays()
    for name in ("bias", "running_var"):
        error = np.abs(arrays[name] - w[name]).max() / np.abs(w[name]).max()
        assert error < 2.0**-9
    assert np.abs(arrays["weight"] - w["weight"]).max() > 2.0**-6


def test_16_bit_tensors_and_integers_are_exact():
    model = sample_arrays(np.random.default_rng(0))
    decoded = decode_model(encode_model(publish_model(model, None, -8)))
    for name, array in model.items():
        if array.dtype.name not in ("float32", "float64"):
            assert bits(decoded[name]) == bits(array)


def test_unchanged_exact_tensors_cost_next_to_nothing():
    rng = np.random.default_rng(1)
    w = {"ids": rng.integers(0, 2**60, 5000), "w": rng.normal(size=2000)}
    old = publish_model(w, None, -8)
    new = publish_model({**w, "w": w["w"] + 0.01}, old, -8)
    assert len(encode_model(new, old)) < 1500
    assert len(encode_model(old, old)) < 500


def test_a_wrong_base_is_refused():
    rng = np.random.default_rng(0)
    w = network(rng)
    a = publish_model(w, None, -8)
    b = publish_model(moved(w, rng, 0.1), a, -8)
    frame = encode_model(b, a)
    other = dict(a.arrays())
    other["scalar"] = other["scalar"] + np.float32(1)
    reordered = dict(reversed(a.arrays().items()))
    for base in (None, b.arrays(), w, other, reordered, {}):
        with pytest.raises(StateMismatchError):
            decode_model(frame, base)
    with pytest.raises(CodecError):
        decode_model(encode_model(a), expected=Layout.of({"x": w["scalar"]}))


def test_a_base_is_believed_to_be_what_its_digest_says_but_the_result_is_not():
    rng = np.random.default_rng(1)
    w = network(rng)
    a = publish_model(w, None, -8)
    b = publish_model(moved(w, rng, 0.1), a, -8)
    frame = encode_model(b, a)
    decoded = decode_model(frame, a.arrays(), base_digest=a.digest)
    assert model_digest(decoded) == b.digest
    with pytest.raises(StateMismatchError):
        decode_model(frame, a.arrays(), base_digest=b.digest)
    with pytest.raises(CodecError, match=r"from its digest|beyond its type"):
        decode_model(frame, b.arrays(), base_digest=a.digest)


def sealed(frame: bytes) -> bytes:
    return frame[:-4] + struct.pack("<I", zlib.crc32(frame[:-4]))


def with_config(frame: bytes, config: bytes) -> bytes:
    (before,) = struct.unpack_from("<H", frame, 56)
    (size,) = struct.unpack_from("<I", frame, 8)
    head = frame[:8] + struct.pack("<I", size - before + len(config)) + frame[12:56]
    body = struct.pack("<H", len(config)) + config + frame[58 + before :]
    return sealed(head + body)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("place", "size"), [(12, 4), (16, 8)], ids=("version", "digest")
)
def test_a_published_model_continues_from_no_codec_state(whole, place, size):
    rng = np.random.default_rng(5)
    w = network(rng)
    old = publish_model(w, None, -8)
    new = publish_model(moved(w, rng, 0.1), old, -8)
    frame = encode_model(new, None if whole else old)
    for bit in range(8 * size):
        flipped = bytearray(frame)
        flipped[place + bit // 8] ^= 1 << bit % 8
        with pytest.raises(StateMismatchError, match="codec state"):
            decode_model(sealed(bytes(flipped)), old.arrays())


def test_a_published_model_has_no_flags():
    w = network(np.random.default_rng(6))
    frame = encode_model(publish_model(w, None, -8))
    for flags in (2, 4, 6):
        odd = sealed(frame[:5] + bytes([flags]) + frame[6:])
        with pytest.raises(CodecError, match="flags"):
            decode_model(odd)


def test_a_published_model_is_configured_by_a_number():
    w = network(np.random.default_rng(7))
    point = publish_model(w, None, -8)
    frame = encode_model(point)
    for good in (b"0", b"0.0", b"-0.0", b"0e7"):
        found = decode_model(with_config(frame, CONFIG % good))
        assert model_digest(found) == point.digest
    for bad in (b"true", b"false", b"0.5", b"-1", b'"0"', b"null", b"[0]", b"1e400"):
        with pytest.raises(CodecError):
            decode_model(with_config(frame, CONFIG % bad))


CONFIG = b'{"id": "lattice_model", "exact_below": %s}'


def test_what_cannot_be_published_is_refused_by_name():
    good = {"w": np.ones(3, np.float32)}
    point = publish_model(good, None, -8)
    with pytest.raises(CodecError, match="other tensors"):
        publish_model({"v": good["w"]}, point, -8)
    with pytest.raises(CodecError, match="not on its lattice"):
        ModelPoint.of({"w": np.full(3, 0.1, np.float32)}, point.exponents)


@pytest.mark.filterwarnings("error")
def test_hostile_frames_are_refused_or_harmless():
    rng = np.random.default_rng(3)
    w = network(rng)
    old = publish_model(w, None, -9)
    new = publish_model(moved(w, rng, 0.01), old, -7)
    base, layout = old.arrays(), old.layout
    odd = {**w, "conv": np.full_like(w["conv"], np.inf)} if "conv" in w else w
    special = publish_model(odd, old, -7)
    frames = [encode_model(new), encode_model(new, old), encode_model(special, old)]
    for i in range(2000):
        expected = layout if rng.random() < 0.8 else None
        kind, hostile = mutate(frames[i % 3], rng)
        try:
            found = decode_model(
                hostile, base, expected=expected, max_bytes=2 * layout.nbytes
            )
        except CodecError:
            continue
        except Exception as err:
            raise AssertionError(f"{kind}: {err!r}") from err
        if expected is not None:
            assert Layout.of(found).same_shapes(layout)
    assert same(base, old.arrays())


def test_which_tensors_are_on_the_finer_lattice() -> None:
    rules = LatticeRules(fine_below=10)
    small, large = (
        Layout.of({"w": np.zeros(n, np.float32)}).tensors[0] for n in (9, 10)
    )
    assert rules.exponent(large, 0.25, -8) == -8
    assert rules.exponent(small, 0.25, -8) == -14
