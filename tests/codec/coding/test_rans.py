"""The entropy coder: exact, near the entropy, and safe on hostile bytes."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, kernel
from flwr_caesar.codec.coding import lanes, rans
from flwr_caesar.codec.coding.counts import count_symbols, entropy_bits
from flwr_caesar.codec.coding.integers import (
    decode_integers,
    encode_integers,
)
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols


def laplace_symbols(n, scale, contexts, seed=0):
    rng = np.random.default_rng(seed)
    context = rng.integers(0, contexts, n).astype(np.uint8)
    spread = scale * 2.0 ** (context / 4)
    values = np.rint(rng.laplace(size=n) * spread).astype(np.int64)
    symbols = np.where(values >= 0, 2 * values, -2 * values - 1)
    return np.minimum(symbols, 511).astype(np.uint16), context


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 3000),
    scale=st.floats(0.01, 40),
    contexts=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_symbols_round_trip(n, scale, contexts, seed):
    symbols, context = laplace_symbols(n, scale, contexts, seed)
    data = encode_symbols(symbols, context, contexts)
    assert (decode_symbols(data, context, contexts) == symbols).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 30_000),
    scale=st.floats(0.01, 10),
    contexts=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_short_rows_are_coded_as_long_ones_are(n, scale, contexts, seed):
    """Element by element or as arrays: the same bytes, and the same symbols of them."""
    symbols, context = laplace_symbols(n, scale, contexts, seed)
    found = []
    for narrow in (0, 1 << 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "native", None)
            patch.setattr(lanes, "_NARROW_LANES", narrow)
            found.append(encode_symbols(symbols, context, contexts))
            decoded = decode_symbols(found[0], context, contexts)
        assert (decoded == symbols).all()
    assert found[0] == found[1]


@pytest.mark.parametrize("n", [40_000, 300_000])
def test_two_stage_streams_round_trip(n):
    symbols, context = laplace_symbols(n, 3.0, 5)
    data = encode_symbols(symbols, context, 5)
    assert (decode_symbols(data, context, 5) == symbols).all()


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("n", [300, 3000, 600_000])
def test_many_contexts_round_trip(n):
    """Looked up by bisection where symbols are few, else in tables."""
    rng = np.random.default_rng(11)
    context = rng.integers(0, 256, n).astype(np.uint8)
    symbols = (context + rng.geometric(0.2, n)).astype(np.uint16)
    data = encode_symbols(symbols, context, 256)
    assert (decode_symbols(data, context, 256) == symbols).all()


@pytest.mark.parametrize("scale", [0.3, 0.6, 1.2])
@pytest.mark.parametrize("contexts", [1, 16])
def test_within_one_percent_of_the_entropy(scale, contexts):
    symbols, context = laplace_symbols(10**6, scale, contexts)
    bits = entropy_bits(count_symbols(symbols, context, contexts))
    data = encode_symbols(symbols, context, contexts)
    assert 8 * len(data) <= 1.01 * bits
    assert (decode_symbols(data, context, contexts) == symbols).all()


def test_one_certain_symbol_costs_next_to_nothing():
    symbols = np.full(10**5, 7, np.uint16)
    context = np.zeros(10**5, np.uint8)
    data = encode_symbols(symbols, context, 1)
    assert len(data) < 300
    assert (decode_symbols(data, context, 1) == symbols).all()


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("bisected", [False, True])
@pytest.mark.parametrize("lane_count", [1, 8, 9, 12, 13, 200])
def test_any_number_of_lanes_is_read_with_tables_or_by_bisection(lane_count, bisected):
    contexts = 70
    symbols, context = laplace_symbols(lane_count * 9 + 5, 3.0, contexts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "_FEW_SLOTS", 0 if bisected else 1 << 30)
        for plan in (lane_count, 1, 0), (lane_count, lane_count, len(symbols) // 2):
            patch.setattr(rans, "_choose_lanes", lambda n, bits, plan=plan: plan)
            data = encode_symbols(symbols, context, contexts)
            assert (decode_symbols(data, context, contexts) == symbols).all()


def head_of(n: int, head: int, many: int, few: int) -> bytes:
    return struct.pack("<QIHHHHI", n, head, many, few, 0, 1, 0)


@pytest.mark.parametrize(
    "header",
    [
        head_of(100, 0, 1, 101),
        head_of(100, 50, 1, 51),
        head_of(100, 50, 51, 1),
        head_of(100, 50, 0, 1),
        head_of(100, 50, 1, 0),
        head_of(4097, 2049, 1, 1),
        head_of(4096, 2000, 1, 1),
        head_of(49_152, 24_576, 12, 12),
    ],
)
def test_more_lanes_than_symbols_and_more_rows_than_needed_are_refused(header):
    """Before anything is decoded: the time of a row hardly depends on its lanes."""
    (n,) = struct.unpack_from("<Q", header)
    with pytest.raises(CodecError, match="malformed header"):
        decode_symbols(header + bytes(500), np.zeros(n, np.uint8), 1)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60_000),
    scale=st.sampled_from([0.01, 0.3, 3.0, 60.0]),
    contexts=st.integers(1, 90),
    rare=st.booleans(),
)
def test_the_writer_needs_fewer_words_than_the_reader_allows(n, scale, contexts, rare):
    symbols, context = laplace_symbols(n, scale, contexts)
    if rare:  # all symbols of the alphabet, once: the dearest tables there are
        symbols[: min(n, 512)] = np.arange(min(n, 512))
    data = encode_symbols(symbols, context, contexts)
    _, head, many, few, _, _, words = struct.unpack_from("<QIHHHHI", data)
    assert words <= 0.7 * rans.most_words(max(many if head else 0, few))


def test_high_entropy_in_few_lanes_is_refused():
    symbols, context = laplace_symbols(9_000, 60.0, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "_choose_lanes", lambda n, bits: (5, 1, 0))
        data = encode_symbols(symbols, context, 1)
        with pytest.raises(CodecError, match="malformed header"):
            decode_symbols(data, context, 1)
        patch.setattr(rans, "_choose_lanes", lambda n, bits: (80, 1, 0))
        data = encode_symbols(symbols, context, 1)
    assert (decode_symbols(data, context, 1) == symbols).all()


def test_tables_of_more_symbols_than_there_are_are_refused():
    """Building tables takes time, too: as much as there are symbols, at the most."""
    symbols, context = np.arange(9, dtype=np.uint16), np.zeros(9, np.uint8)
    quantise = rans.quantise_counts
    for more in (0, 1):

        def codes(counts, more=more):
            found = quantise(counts)
            return np.pad(found, ((0, 0), (0, more)), constant_values=1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rans, "quantise_counts", codes)
            data = encode_symbols(symbols, context, 1)
        if more:
            with pytest.raises(CodecError, match="more symbols than there are"):
                decode_symbols(data, context, 1)
        else:
            assert (decode_symbols(data, context, 1) == symbols).all()


@settings(max_examples=300, deadline=None)
@given(n=st.integers(1, 1 << 22), share=st.floats(0, 1), more=st.booleans())
def test_the_writer_needs_no_more_rows_and_lanes_than_the_reader_allows(n, share, more):
    bits = 14 * n * share**8 if more else 17.0 * max(-(-n // 2048), 1) + share
    few, many, head = rans._choose_lanes(n, bits)
    rows = -(-head // many), -(-(n - head) // few)
    assert max(rows) <= rans.MAX_ROWS
    assert sum(rows) <= rans.most_rows(n)
    assert few <= n - head
    assert not head or many <= head


def test_encoding_is_deterministic():
    symbols, context = laplace_symbols(50_000, 1.0, 7)
    assert encode_symbols(symbols, context, 7) == encode_symbols(symbols, context, 7)


def test_hostile_bytes_raise_only_codec_errors():
    rng = np.random.default_rng(2)
    values = np.rint(rng.laplace(size=30_000) * 20).astype(np.int32)
    context = rng.integers(0, 6, len(values)).astype(np.uint8)
    good = encode_integers(values, context, 6)
    for trial in range(400):
        bad = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(0, 400 if trial % 2 else len(bad)))] = rng.integers(
                256
            )
        if trial % 5 == 0:
            bad = bad[: int(rng.integers(0, len(bad)))]
        try:
            found = decode_integers(bytes(bad), context, 6)
        except CodecError:
            continue
        assert found.shape == values.shape


def test_every_truncation_is_refused():
    symbols, context = laplace_symbols(500, 1.0, 3)
    data = encode_symbols(symbols, context, 3)
    for size in range(len(data)):
        with pytest.raises(CodecError):
            decode_symbols(data[:size], context, 3)


def test_contexts_that_no_symbol_uses_take_no_table():
    symbols, context = np.zeros(100, np.uint16), np.full(100, 200, np.uint8)
    data = encode_symbols(symbols, context, 256)
    tracemalloc.start()
    try:
        found = decode_symbols(data, context, 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found == symbols).all()
    assert peak < 1 << 20
