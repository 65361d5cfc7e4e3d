"""Tables of parameters come back, fit what they code, and cannot lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding.class_counts import ClassCounts
from flwr_caesar.codec.coding.compact_block import (
    decode_compact_block,
    encode_compact_block,
)
from flwr_caesar.codec.coding.compact_scales import Levels, read_levels
from flwr_caesar.codec.coding.compact_symbols import MAGNITUDES, OCTAVES, to_compact
from flwr_caesar.codec.coding.compact_tables import CompactTables
from flwr_caesar.codec.coding.contexts import CLASSES
from flwr_caesar.codec.coding.counts import count_symbols, entropy_bits
from flwr_caesar.codec.coding.parametric import (
    Parameters,
    best_parametric_map,
    coded_bits,
)
from flwr_caesar.codec.coding.small_block import decode_groups, encode_groups
from flwr_caesar.codec.coding.tables import normalise
from flwr_caesar.codec.contract.layout import TensorSpec
from tests.codec import plain_compact
from tests.codec.plain_reader import Tensor

BRIEF = 0x40


def laplace(n: int, scale: float, seed: int = 0) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, n)).astype(np.int32)


def as_bytes(*numbers: int) -> bytes:
    """Return parameters of one context, as they are."""
    size, sign, ratio, slope = numbers
    return encode_groups(
        [np.array(own, np.int32) for own in ([size - 1, sign], [ratio], [slope - 40])]
    )


@settings(max_examples=60)
@given(
    width=st.integers(1, 20),
    histories=st.sampled_from([1, 3]),
    alphabet=st.integers(1, 128),
    seed=st.integers(0, 2**32),
)
def test_parameters_come_back_and_both_readers_make_the_same_tables(
    width: int, histories: int, alphabet: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    contexts = width * histories
    own = Parameters(
        alphabet,
        int(rng.integers(-64, 65)),
        rng.integers(-64, 65, contexts),
        rng.integers(0, 48, contexts),
    )
    data = own.to_bytes(width)
    found, end = Parameters.read(b"?" + data + b"??", 1, contexts, width)
    assert end == 1 + len(data)
    assert (found.alphabet, found.sign) == (own.alphabet, own.sign)
    np.testing.assert_array_equal(found.ratios, own.ratios)
    np.testing.assert_array_equal(found.slopes, own.slopes)
    tables, at = plain_compact.parametric_tables(data, 0, contexts, width)
    assert at == len(data)
    assert tables == normalise(own.codes()).tolist()


def test_the_example_of_the_document() -> None:
    own = Parameters(3, 4, np.array([-2]), np.array([40]))
    assert own.codes().tolist() == [[136, 124, 128]]
    assert normalise(own.codes()).tolist() == [[8777, 3218, 4389]]


@pytest.mark.parametrize("scale", [0.1, 0.4, 1.0, 5.0, 300.0, 1e6])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_laplace_variable_costs_little_more_than_its_entropy(
    scale: float, share: float
) -> None:
    values = np.abs(laplace(20_000, scale))
    negative = np.random.default_rng(1).random(20_000) >= share
    symbols, _ = to_compact(np.where(negative, -values, values).astype(np.int32))
    counts = count_symbols(symbols, np.zeros(20_000, np.uint8), 1)
    bits = entropy_bits(counts)
    codes = Parameters.fit(counts).codes()
    assert bits <= coded_bits(codes, counts) <= 1.035 * bits + 100


def test_octaves_hold_the_middle_of_their_magnitudes() -> None:
    values = np.arange(1 << 14, dtype=np.int32)
    symbols, _ = to_compact(values)
    for symbol in np.unique(symbols).tolist():
        own = values[symbols == symbol]
        assert own[0] <= MAGNITUDES[symbol] <= own[-1] + 1
        if symbol >= 16:
            assert len(own) == 2 ** (OCTAVES[symbol] - 1)  # of each sign


def test_contexts_of_which_nothing_is_known_cost_next_to_nothing() -> None:
    counts = np.zeros((40, 5), np.int64)
    counts[[0, 39]] = [90, 3, 4, 1, 0]
    assert len(Parameters.fit(counts).to_bytes(40)) <= 20


@pytest.mark.parametrize("histories", [None, 3])
def test_few_symbols_have_parameters_and_many_frequencies(
    histories: int | None,
) -> None:
    for n, is_few in (3000, True), (2_000_000, False):
        rng = np.random.default_rng(n)
        classes = rng.integers(20, 40, n).astype(np.uint8)
        seen = None if histories is None else (classes % 3).astype(np.uint8)
        # Unlike any geometric distribution, and still not worth tables if they are few.
        symbols = rng.choice([0, 1, 2, 5], n, p=[0.4, 0.2, 0.2, 0.2]).astype(np.uint16)
        tables = CompactTables.choose(ClassCounts(symbols, classes, seen))
        smooth, _ = to_compact(laplace(n, 1.0))
        own = CompactTables.choose(ClassCounts(smooth, classes, seen))
        assert own.is_parametric == is_few
        assert not (tables.is_parametric and not is_few)


def test_the_best_map_separates_magnitudes_that_differ() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, CLASSES, 20_000).astype(np.uint8)
    scale = 2.0 ** ((classes.astype(float) - 32) / 4)
    values = np.rint(rng.laplace(0, 1, 20_000) * scale).astype(np.int32)
    counts = ClassCounts(to_compact(values)[0], classes, None)
    assert best_parametric_map(counts).size > 10
    shuffled = ClassCounts(to_compact(rng.permutation(values))[0], classes, None)
    assert best_parametric_map(shuffled).size <= 3


@pytest.mark.parametrize(
    "numbers",
    [
        *((0, 0, 0, 9), (129, 0, 0, 9), (5, 65, 0, 9), (5, -65, 0, 9)),
        *((5, 0, 65, 9), (5, 0, -65, 9), (5, 0, 0, -1), (5, 0, 0, 48)),
        (5, 0, 2**31 - 1, 9),
    ],
)
def test_parameters_out_of_range_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match="out of range"):
        Parameters.read(as_bytes(*numbers), 0, 1, 1)


def test_sums_of_parameters_do_not_wrap_around() -> None:
    steps = np.full(16, 2**28, np.int32)  # 2^32 in all
    data = encode_groups([np.array([4, 0], np.int32), steps, 0 * steps])
    with pytest.raises(CodecError, match="out of range"):
        Parameters.read(data, 0, 16, 16)


def test_more_codes_than_integers_are_refused() -> None:
    spec = TensorSpec("w", "float32", (100,))
    head = bytes([BRIEF | 0x10 | 1, 0, 1, 0, 3])
    scales = encode_groups([np.array([-8], np.int32)])
    block = head + scales + as_bytes(101, 0, 0, 9)
    with pytest.raises(CodecError, match="more symbols than"):
        decode_compact_block(block + bytes([3, 2]) + bytes(6), [spec])


@pytest.mark.parametrize("how", [0, 4, 7, 255])
def test_other_ways_to_be_brief_are_refused(how: int) -> None:
    spec = TensorSpec("w", "float32", (40, 50))
    data, _ = encode_compact_block(laplace(2000, 0.5), [spec])
    assert data[0] & BRIEF
    bad = bytearray(data)
    bad[4] = how
    with pytest.raises(CodecError, match="flags"):
        decode_compact_block(bytes(bad), [spec])
    with pytest.raises(CodecError, match="truncated"):
        decode_compact_block(data[:4], [spec])


def test_damaged_blocks_are_refused_or_read_alike_by_both_readers() -> None:
    spec = TensorSpec("w", "float32", (20, 60))
    good, _ = encode_compact_block(laplace(1200, 0.4), [spec])
    assert good[4] == 3
    rng = np.random.default_rng(0)
    ends = set()
    for trial in range(400):
        bad = bytearray(good)
        bad[int(rng.integers(4, 4 + 40))] ^= 1 << int(rng.integers(8))
        if trial % 3 == 0:
            bad[int(rng.integers(len(bad)))] = int(rng.integers(256))
        try:
            found = decode_compact_block(bytes(bad), [spec])[0].tolist()
        except CodecError as err:
            ends.add(str(err))
            continue
        ends.add("decoded")
        plain = [Tensor("w", "float32", (20, 60))]
        assert plain_compact.read_compact_block(bytes(bad), plain, None)[0] == found
    assert len(ends) > 4


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    scale=st.sampled_from([0.0, 0.3, 20.0, 1e8]),
    seed=st.integers(0, 2**32),
)
def test_groups_end_where_they_end(sizes: list[int], scale: float, seed: int) -> None:
    values = laplace(sum(sizes), scale, seed)
    data = encode_groups(np.split(values, np.cumsum(sizes)[:-1]))
    for rest in b"", b"\xff" * 9:
        found, end = decode_groups(b"?" + data + rest, 1, sizes)
        assert end == 1 + len(data)
        np.testing.assert_array_equal(found, values)
        theirs, at = plain_compact.read_groups(data + rest, 0, sizes)
        assert (theirs, at) == (values.tolist(), len(data))
    with pytest.raises(CodecError):
        decode_groups(data[:-1], 0, sizes)


@pytest.mark.parametrize(("count", "in_groups"), [(12, True), (20_000, False)])
def test_scales_take_the_shorter_form(count: int, *, in_groups: bool) -> None:
    rng = np.random.default_rng(0)
    kinds = np.sort(rng.integers(0, 3, count)).astype(np.uint8)
    values = (rng.random(count) < 0.05).astype(np.int32)
    chosen, data = Levels(values, is_relative=False).to_bytes(kinds)
    assert chosen == in_groups
    found, end = read_levels(data, 0, kinds, in_groups=chosen)
    assert end == len(data)
    np.testing.assert_array_equal(found, values)
