"""Compact blocks round-trip, cost less than others, and cannot lie."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding import rans
from flwr_caesar.codec.coding.compact_block import (
    decode_compact_block,
    encode_compact_block,
    in_steps,
)
from flwr_caesar.codec.coding.compact_run import decode_run, encode_run
from flwr_caesar.codec.coding.contexts import count_scales
from flwr_caesar.codec.coding.integers import Integers, encode_integers
from flwr_caesar.codec.coding.lattice_block import encode_block
from flwr_caesar.codec.coding.past import Past
from flwr_caesar.codec.coding.varint import read_varint, write_varint
from flwr_caesar.codec.contract.layout import TensorSpec
from flwr_caesar.codec.contract.vector import Vector, slices
from tests.codec.plain_compact import read_compact_block
from tests.codec.plain_reader import Tensor

EXTREMES = [0, 1, -1, 7, 8, -8, -9, 31, 2**31 - 1, 1 - 2**31]
SHAPES = [(), (0,), (1,), (70,), (5, 3), (60, 50), (8, 6, 3, 3), (1, 96)]


def spec(*shape: int) -> TensorSpec:
    return TensorSpec("w", "float32", shape)


def plain(specs: list[TensorSpec]) -> list[Tensor]:
    return [Tensor(s.name, s.dtype, s.shape) for s in specs]


def past_of(values: Vector, specs: list[TensorSpec], scale: int) -> Past:
    counts = [count_scales(channels(s)) for s in specs]
    held = [values[part] for part in slices(specs)]
    return Past(held.__getitem__, [np.full(n, scale, np.int16) for n in counts])


def channels(own: TensorSpec) -> tuple[int, int, int]:
    if len(own.shape) < 2:
        return 1, 1, own.size
    return own.shape[0], own.shape[1], int(np.prod(own.shape[2:]))


@given(
    n=st.integers(0, 300),
    scale=st.sampled_from([0.0, 0.2, 3.0, 1e3, 1e8]),
    seed=st.integers(0, 2**32),
)
def test_runs_round_trip(n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.rint(rng.laplace(0, 1, n) * scale).astype(np.int32)
    if n:
        values[rng.integers(n)] = rng.choice(EXTREMES)
    contexts = rng.integers(0, 3, n).astype(np.uint8)
    data = encode_run(values, contexts, 3)
    found, end = decode_run(b"??" + data + b"!", 2, contexts, 3)
    assert end == len(data) + 2
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values)
    for bad in (data[:-1], b""):
        with pytest.raises(CodecError):
            decode_run(bad, 0, contexts, 3)


@pytest.mark.parametrize(("n", "saved"), [(0, 36), (300, 85), (30_000, 75)])
def test_a_run_has_less_beside_its_integers(n: int, saved: int) -> None:
    rng = np.random.default_rng(0)
    values = np.rint(rng.standard_t(2, n) * 5).astype(np.int32)
    contexts = (np.abs(values) > rng.integers(1, 9, n)).astype(np.uint8)
    data = encode_run(values, contexts, 2)
    assert len(data) <= len(encode_integers(values, contexts, 2)) - saved


def test_an_integer_beyond_32_bits_is_refused() -> None:
    values, contexts = np.array([1 - 2**31], np.int32), np.zeros(1, np.uint8)
    data = bytearray(encode_run(values, contexts, 1))
    assert decode_run(bytes(data), 0, contexts, 1)[0][0] == 1 - 2**31
    data[-4:] = b"\xff" * 4  # its 29 raw bits: u = 2^32 - 3 becomes 2^32 - 1
    with pytest.raises(CodecError, match="exceeds"):
        decode_run(bytes(data), 0, contexts, 1)


@settings(max_examples=60)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), max_size=4),
    scale=st.sampled_from([0.0, 0.3, 4.0, 1e8]),
    seed=st.integers(0, 2**32),
    with_past=st.booleans(),
)
def test_blocks_round_trip(
    shapes: list[tuple[int, ...]], scale: float, seed: int, *, with_past: bool
) -> None:
    rng = np.random.default_rng(seed)
    specs = [spec(*shape) for shape in shapes]
    n = sum(s.size for s in specs)
    x = rng.laplace(0, 1, n)
    indices = np.rint(x * scale).astype(np.int32)
    past = None
    if with_past:
        noise = rng.normal(0, rng.choice([0.1, 10]), n)
        past = past_of((scale * x + noise).astype(np.float32), specs, seed % 5 - 2)
    data, scales = encode_compact_block(indices, specs, past)
    found, told = decode_compact_block(data, specs, past)
    np.testing.assert_array_equal(found, indices)
    assert [s.tolist() for s in told] == [s.tolist() for s in scales]
    before = past and [
        (past.previous(i).tolist(), own.tolist()) for i, own in enumerate(past.scales)
    ]
    theirs, theirs_told = read_compact_block(data, plain(specs), before)
    assert theirs == indices.tolist()
    if data:
        assert theirs_told == [s.tolist() for s in scales]
    for bad in (data[:-1], data + b"\0", b"\0"):
        if bad != data:
            with pytest.raises(CodecError):
                decode_compact_block(bad, specs, past)


def rectified(share: float, axis: int) -> Integers:
    """Return integers of which a share has the sign of its channel."""
    rng = np.random.default_rng(1)
    magnitude = np.rint(np.abs(rng.laplace(0, 1, (64, 200)))).astype(np.int32)
    own = rng.choice([-1, 1], (64, 1) if axis == 0 else (1, 200))
    return magnitude * np.where(rng.random((64, 200)) < share, own, -own)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("share", "most"), [(1.0, 0.77), (0.9, 0.87), (0.5, 1.0)])
def test_channels_have_signs_where_that_is_shorter(
    axis: int, share: float, most: float
) -> None:
    indices = rectified(share, axis).astype(np.int32).reshape(-1)
    specs = [spec(64, 200)]
    data, _ = encode_compact_block(indices, specs)
    assert len(data) < most * len(encode_block(indices, specs))
    assert data[3] & 3 == (axis + 1 if share > 0.5 else 0)


def test_the_last_round_tells_signs_magnitudes_and_scales() -> None:
    rng = np.random.default_rng(2)
    specs = [spec(64, 200)]
    rows = np.exp(rng.normal(0, 1.5, (64, 1)))
    x = (rows * rng.laplace(0, 1, (64, 200))).reshape(-1)
    indices = np.rint(x + rng.normal(0, 0.2, len(x))).astype(np.int32)
    data, scales = encode_compact_block(indices, specs)
    past = Past(lambda i: x.astype(np.float32), scales)
    with_past, again = encode_compact_block(indices, specs, past)
    assert len(with_past) < 0.68 * len(data)
    assert with_past[0] & 0x28 == 0x28  # histories, and scales that are relative
    assert with_past[3] & 3 == 3
    assert [s.tolist() for s in again] == [s.tolist() for s in scales]
    with pytest.raises(CodecError, match="history"):
        decode_compact_block(with_past, specs)


def test_a_round_that_is_like_none_before_costs_nothing_more() -> None:
    rng = np.random.default_rng(3)
    specs = [spec(64, 200)]
    indices = np.rint(rng.laplace(0, 1, 12_800)).astype(np.int32)
    data, scales = encode_compact_block(indices, specs)
    other = rng.laplace(0, 1, 12_800).astype(np.float32)
    past = Past(lambda i: other, [np.full_like(own, 40) for own in scales])
    assert encode_compact_block(indices, specs, past)[0] == data


def test_histories_have_tables_only_where_these_are_worth_it() -> None:
    rng = np.random.default_rng(5)
    specs = [spec(100, 600)]
    common = np.exp(rng.normal(0, 2.5, (100, 1)) + rng.normal(0, 0.7, (100, 600)))
    now, before = (common * rng.laplace(0, 1, (100, 600)) for _ in range(2))
    indices = np.rint(now).astype(np.int32).reshape(-1)
    data, scales = encode_compact_block(indices, specs)
    past = Past(lambda i: before.reshape(-1).astype(np.float32), scales)
    assert len(encode_compact_block(indices, specs, past)[0]) < len(data)


def test_scales_stay_as_they_were_only_where_they_fit() -> None:
    rng = np.random.default_rng(5)
    specs = [spec(200, 300)]
    rows = np.exp(rng.normal(0, 1, (200, 1)))
    x = 0.5 * rows * rng.laplace(0, 1, (200, 300))
    indices = np.rint(x).astype(np.int32).reshape(-1)
    data, scales = encode_compact_block(indices, specs)
    other = rng.laplace(0, 1, indices.size).astype(np.float32)
    off = scales[0] + rng.choice([-3, 3], len(scales[0])).astype(np.int16)
    assert encode_compact_block(indices, specs, Past(lambda i: other, [off]))[0] == data
    again, _ = encode_compact_block(indices, specs, Past(lambda i: other, scales))
    assert again[0] & 0x20
    assert len(again) < len(data)


def test_two_parts_are_read_by_both_readers() -> None:
    rng = np.random.default_rng(4)
    indices = np.rint(rng.laplace(0, 3, 3000)).astype(np.int32)
    specs = [spec(60, 50)]
    with patch.object(rans, "_choose_lanes", lambda n, bits: (2, 40, n - n // 4)):
        data, scales = encode_compact_block(indices, specs)
    found, _ = decode_compact_block(data, specs)
    np.testing.assert_array_equal(found, indices)
    assert read_compact_block(data, plain(specs), None)[0] == indices.tolist()
    assert scales


def test_unknown_flags_are_refused() -> None:
    specs = [spec(60, 50)]
    data, _ = encode_compact_block(np.ones(3000, np.int32), specs)
    for flag in (0x80, 0x40 if not data[0] & 0x40 else 0x80):
        with pytest.raises(CodecError, match="flags"):
            decode_compact_block(bytes([data[0] | flag]) + data[1:], specs)


def test_nothing_over_a_step_is_nothing() -> None:
    values = np.array([0.0, -0.0, 1.0, -1.0], np.float32)
    found = in_steps(values.copy(), np.float32(0))
    assert found.tolist() == [0.0, 0.0, np.inf, -np.inf]
    assert in_steps(values.copy(), np.float32(0.5)).tolist() == [0.0, 0.0, 2.0, -2.0]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63 - 1])
def test_numbers_round_trip(value: int) -> None:
    data = write_varint(value)
    assert read_varint(b"?" + data + b"?", 1) == (value, 1 + len(data))
    with pytest.raises(CodecError):
        read_varint(data[:-1], 0)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\x80" * 9, b"\x80" * 9 + b"\x01"])
def test_numbers_with_more_bytes_than_they_need_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        read_varint(data, 0)


@pytest.mark.parametrize("kept", [None, 0.5, 1.0])
def test_scales_that_tell_little_take_little(kept: float | None) -> None:
    """Columns with one or two integers each, all alike: little over the entropy."""
    rng = np.random.default_rng(3)
    specs = [TensorSpec("w", "float32", (62, 3136))]
    share = 0.025
    q = rng.choice([-1, 0, 1], specs[0].size, p=[share / 2, 1 - share, share / 2])
    past = None
    if kept is not None:
        scales = rng.integers(-2, 3, 1 + 62 + 3136).astype(np.int16)
        last = rng.normal(size=specs[0].size).astype(np.float32)
        past = Past(lambda _: last, [(kept * scales).astype(np.int16)])
    block, _ = encode_compact_block(q.astype(np.int32), specs, past)
    ideal = -share * np.log2(share / 2) - (1 - share) * np.log2(1 - share)
    assert len(block) <= 1.075 * ideal * specs[0].size / 8
    found, _ = decode_compact_block(block, specs, past)
    np.testing.assert_array_equal(found, q)


@pytest.mark.parametrize("edge", [-255, 255])
def test_changes_of_scales_at_the_edge_stay_inside(edge: int) -> None:
    rng = np.random.default_rng(4)
    specs = [TensorSpec("w", "float32", (100, 100))]
    q = rng.integers(-1, 2, specs[0].size).astype(np.int32)
    past = Past(lambda _: np.ones(q.size, "f4"), [np.full(201, edge, np.int16)])
    block, scales = encode_compact_block(q, specs, past)
    found, read = decode_compact_block(block, specs, past)
    np.testing.assert_array_equal(found, q)
    np.testing.assert_array_equal(scales[0], read[0])


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_16_bits_give_the_same_block(sign: int) -> None:
    """Rows of one sign, of which the signs are told by channel."""
    rng = np.random.default_rng(0)
    rows = np.where(np.arange(40) % 2, sign, -sign)[:, np.newaxis]
    values = (np.abs(rng.normal(0, 3, (40, 50))) * rows).astype(np.int16).reshape(-1)
    values[:2] = -(1 << 15), (1 << 15) - 1
    specs = [TensorSpec("w", "float32", (40, 50))]
    block, _ = encode_compact_block(values, specs)
    assert block == encode_compact_block(values.astype(np.int32), specs)[0]
    found, _ = decode_compact_block(block, specs)
    np.testing.assert_array_equal(found, values)
