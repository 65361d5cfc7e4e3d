"""Short blocks round-trip, cost little more than their entropy, and cannot lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding.lattice_block import encode_block
from flwr_caesar.codec.coding.small_block import (
    decode_small_block,
    encode_shorter,
    encode_small_block,
    max_small_block_bytes,
)
from flwr_caesar.codec.contract.layout import TensorSpec

EXTREMES = [0, 1, -1, 31, -32, 2**31 - 1, 1 - 2**31]


def specs_of(sizes: list[int]) -> list[TensorSpec]:
    return [TensorSpec(str(i), "float32", (n,)) for i, n in enumerate(sizes)]


@given(
    sizes=st.lists(st.integers(0, 40), max_size=6),
    scale=st.sampled_from([0.0, 0.2, 3.0, 1e3, 1e8]),
    seed=st.integers(0, 2**32),
)
def test_integers_round_trip(sizes: list[int], scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    specs = specs_of(sizes)
    indices = np.rint(rng.laplace(0, 1, sum(sizes)) * scale).astype(np.int32)
    if len(indices):
        indices[rng.integers(len(indices))] = rng.choice(EXTREMES)
    data = encode_small_block(indices, specs)
    found = decode_small_block(data, specs)
    assert len(data) <= max_small_block_bytes(specs)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, indices)
    for bad in (data[:-1], data + b"\0", b""):
        if bad != data:
            with pytest.raises(CodecError):
                decode_small_block(bad, specs)


def test_tensors_of_zeros_cost_a_byte() -> None:
    specs = specs_of([5000, 3, 70_000])
    indices = np.zeros(75_003, np.int32)
    assert len(encode_small_block(indices, specs)) == 3
    indices[5001] = 9
    assert len(encode_small_block(indices, specs)) < 8


@pytest.mark.parametrize("deviation", [1.0, 4.0, 60.0])
def test_a_few_integers_cost_near_their_entropy(deviation: float) -> None:
    x = np.random.default_rng(0).normal(0, deviation, 1000)
    indices = np.rint(x).astype(np.int32)
    bits = 8 * len(encode_small_block(indices, specs_of([1000]))) / 1000
    assert bits < np.log2(deviation) + 2.05 + 0.35


def test_the_shorter_block_is_taken() -> None:
    rng = np.random.default_rng(0)
    for n, spread in ((50, 8.0), (3000, 0.1), (3000, 8.0), (40_000, 1.0)):
        specs = specs_of([n])
        indices = np.rint(rng.normal(0, spread, n)).astype(np.int32)
        is_small, data = encode_shorter(indices, specs)
        both = [encode_small_block(indices, specs), encode_block(indices, specs)]
        assert data == both[0 if is_small else 1]
        assert len(data) == min(map(len, both)) or n > 1 << 15


@given(data=st.binary(max_size=60), sizes=st.lists(st.integers(0, 30), max_size=4))
def test_any_bytes_decode_or_are_refused(data: bytes, sizes: list[int]) -> None:
    specs = specs_of(sizes)
    try:
        found = decode_small_block(data, specs)
    except CodecError:
        return
    assert found.shape == (sum(sizes),)


def test_what_no_writer_writes_is_refused() -> None:
    specs = specs_of([1])
    for data in (bytes([32, 0x80, 0, 0, 0, 0]), bytes([254]), bytes([31, 0x20, 0, 0])):
        with pytest.raises(CodecError):
            decode_small_block(data, specs)
    too_large = bytes([31]) + bytes([0x20]) + bytes(4)  # quotient 2 of 2^31
    with pytest.raises(CodecError, match="32 bits"):
        decode_small_block(too_large, specs)
