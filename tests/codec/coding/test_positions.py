"""Positions round-trip, cost little more than their entropy, and cannot lie."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding.positions import (
    POSITIONS_OVERHEAD,
    Positions,
    decode_positions,
    encode_positions,
    max_positions_bytes,
    pack_bits,
    position_cost,
    unpack_bits,
)

RICE, COMPLEMENT = 0x40, 0x80


def head(mode: int, k: int) -> bytes:
    return struct.pack("<BI", mode, k)


@st.composite
def position_sets(draw: st.DrawFn) -> tuple[Positions, int]:
    n = draw(st.integers(0, 3000))
    density = draw(st.sampled_from([0, 0.001, 0.01, 0.1, 0.4, 0.5, 0.6, 0.99, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return np.flatnonzero(rng.random(n) < density), n


@given(position_sets())
def test_positions_round_trip(case: tuple[Positions, int]) -> None:
    positions, n = case
    data = encode_positions(positions, n)
    assert len(data) <= max_positions_bytes(n)
    decoded = decode_positions(data, n)
    assert decoded.dtype == np.int64
    np.testing.assert_array_equal(decoded, positions)


@given(
    st.integers(1, 3000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.integers(0, 99),
)
def test_the_cost_of_positions_is_a_bound_wherever_they_are(
    n: int, density: float, remaining: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    within = max(int(spread * n), 1)
    most = max(int(density * within), 1)
    k = int(remaining * most)
    positions = np.sort(rng.choice(within, k, replace=False))
    bits, freed = position_cost(most, n)
    bits -= int((most - k) * freed)
    assert len(encode_positions(positions, n)) <= POSITIONS_OVERHEAD + -(-bits // 8)


@pytest.mark.parametrize("n", range(1, 8))
def test_every_subset_of_a_short_vector_round_trips(n: int) -> None:
    for mask in range(1 << n):
        positions = np.array([i for i in range(n) if mask >> i & 1], np.int64)
        decoded = decode_positions(encode_positions(positions, n), n)
        np.testing.assert_array_equal(decoded, positions)


@pytest.mark.parametrize("at", ["first", "last", "half", "clustered"])
def test_uneven_positions_round_trip(at: str) -> None:
    n = 100_003
    positions = {
        "first": np.arange(50),
        "last": np.arange(n - 3, n),
        "half": np.arange(n // 2),
        "clustered": np.concatenate([np.arange(9), np.arange(n - 9, n)]),
    }[at]
    np.testing.assert_array_equal(
        decode_positions(encode_positions(positions, n), n), positions
    )


@pytest.mark.parametrize(
    ("density", "factor"),
    [(density, 1.03) for density in (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2)]
    + [(density, 1.25) for density in (0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9, 0.99)],
)
def test_cost_is_near_the_bernoulli_entropy(density: float, factor: float) -> None:
    n = 200_000
    rng = np.random.default_rng(7)
    k = round(density * n)
    positions = np.sort(rng.choice(n, k, replace=False))
    p = k / n
    entropy = -n * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert 8 * len(encode_positions(positions, n)) <= factor * entropy


@given(st.integers(0, 62), st.lists(st.integers(0, 2**62 - 1), max_size=30))
def test_packed_bits_round_trip(b: int, values: list[int]) -> None:
    low = np.array(values, np.int64) & ((1 << b) - 1)
    packed = pack_bits(low, b)
    assert len(packed) == (b * len(values) + 7) // 8
    assert unpack_bits(packed, b, len(values)).tolist() == low.tolist()


def test_bits_are_packed_most_significant_first() -> None:
    assert pack_bits(np.array([5, 2, 7]), 3) == bytes([0b10101011, 0b10000000])


def test_packed_bits_of_another_length_are_refused() -> None:
    with pytest.raises(CodecError, match="wrong length"):
        unpack_bits(b"\0\0", 3, 2)


@pytest.mark.parametrize(
    ("data", "n"),
    [
        (b"", 8),
        (head(0, 0), 8),
        (head(0, 1) + b"\x80" + bytes(9), 8),
        (head(0, 2) + b"\x80", 8),
        (head(0, 9) + b"\xff\x80", 8),
        (head(0, 1) + b"\x80\0", 8),
        (head(0, 1) + b"\x01", 7),
        (head(0, 1), 8),
        (head(1, 1) + b"\x80\0", 8),
        (head(RICE, 2**32 - 1) + b"\x80", 8),
        (head(RICE | 63, 2**32 - 1) + b"\x80", 8),
        (head(RICE, 1) + b"\x80\0", 16),
        (head(RICE, 0) + b"\0", 8),
        (head(RICE | 63, 1) + b"\x80" + bytes(8), 1 << 20),
        # the quotient 2 << 62 wraps to a negative gap, 4 << 62 to zero
        (head(RICE | 62, 1) + b"\x20" + bytes(8), 1 << 20),
        (head(RICE | 62, 1) + b"\x08" + bytes(8), 1 << 20),
        # gaps of 2^62 - 1, so that their sum wraps
        (head(RICE | 62, 3) + b"\xe0" + b"\xff" * 24, 1 << 20),
        # out of the vector, and back by a quotient 3 << 62 that wraps
        (
            head(RICE | 62, 2) + b"\x88" + pack_bits(np.array([2**62 - 1, 5]), 62),
            1 << 20,
        ),
        (head(RICE | 3, 1) + b"\x80\xe0", 7),
        (head(RICE, 1) + b"\0\x80", 8),
    ],
)
def test_lies_are_refused(data: bytes, n: int) -> None:
    with pytest.raises(CodecError):
        decode_positions(data, n)


@given(st.integers(0, 255), st.integers(0, 40), st.binary(max_size=30), st.data())
def test_what_decodes_is_a_set_of_positions(
    mode: int, k: int, body: bytes, data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, 300))
    try:
        positions = decode_positions(head(mode, k) + body, n)
    except CodecError:
        return
    assert len(positions) == (n - k if mode & COMPLEMENT else k)
    assert (np.diff(positions, prepend=-1) > 0).all()
    assert (positions < n).all()


def test_a_vector_too_long_for_the_header_is_refused() -> None:
    with pytest.raises(CodecError, match="4294967296"):
        encode_positions(np.arange(1), 2**32)
