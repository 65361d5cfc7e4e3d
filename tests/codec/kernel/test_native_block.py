"""What the compiled kernel does with all tensors of a block is what numpy does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, kernel
from flwr_caesar.codec.coding.block_shape import BlockShape
from flwr_caesar.codec.coding.block_tensors import (
    block_classes,
    block_contexts,
    block_sums,
    block_symbols,
    flip_block,
)
from flwr_caesar.codec.coding.contexts import ContextMap, as_channels
from flwr_caesar.codec.coding.past import Past
from flwr_caesar.codec.coding.signs import SignMode, Signs, count_channels
from flwr_caesar.codec.coding.small_block import decode_groups, encode_groups
from flwr_caesar.codec.contract.layout import TensorSpec

from .test_native import same

pytestmark = pytest.mark.skipif(kernel.native is None, reason=kernel.in_use)

SHAPES: list[list[tuple[int, ...]]] = [
    [(1,)],
    [(3, 0)],
    [(7, 130), (0, 4), (130,), (2, 3, 5, 5), (), (60, 2, 60)],
    [(3, 50_000), (70_000,), (1, 3, 30_000), (20_000, 9, 1)],
]
PASTS = [False, True]


def block_of(shapes: list[tuple[int, ...]], seed: int) -> tuple[Any, ...]:
    """Return integers, their block, and what both sides know of it."""
    rng = np.random.default_rng(seed)
    specs = [TensorSpec(f"t{i}", "float32", s) for i, s in enumerate(shapes)]
    n = sum(spec.size for spec in specs)
    integers = np.rint(rng.laplace(size=n) * 2.0 ** rng.integers(0, 9, n) / 8)
    block = BlockShape.of(specs)
    before = [
        rng.laplace(size=spec.size).astype(np.float32) * (rng.random(spec.size) < 0.5)
        for spec in specs
    ]
    scales = rng.integers(-40, 41, len(block.kinds)).astype(np.int16)
    past = Past(before.__getitem__, block.split(scales))
    return integers.astype(np.int32), block, scales, past


def signs_of(block: BlockShape, modes: list[SignMode], seed: int) -> list[Signs]:
    rng = np.random.default_rng(seed)
    found = []
    for i, shape in enumerate(block.shapes):
        mode = modes[i % len(modes)]
        negative = rng.random(count_channels(mode, shape)) < 0.5
        found.append(Signs(mode, negative))
    return found


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("has_past", PASTS)
def test_sums_of_all_tensors_are_the_same(shapes, has_past):
    integers, block, _, past = block_of(shapes, 1)

    def sums() -> Any:
        found = block_sums(integers, block, past if has_past else None)
        return [
            (
                *(own.slices().sums.tolist(), own.slices().means.tolist()),
                *(signs._outputs.tolist(), signs._inputs.tolist()),
                *(signs.active, signs._agreeing),
            )
            for own, signs in found
        ]

    assert sum(own[4] for own in same(sums)) == np.count_nonzero(integers)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("last", [SignMode.OWN, SignMode.HISTORY])
def test_signs_and_symbols_of_all_tensors_are_the_same(shapes, last):
    integers, block, _, past = block_of(shapes, 2)
    signs = signs_of(block, [SignMode.OUTPUTS, SignMode.INPUTS, last], 3)

    def flipped() -> Any:
        own = integers.copy()
        flip_block(own, block, signs, past)
        return own

    def symbols() -> Any:
        found, far = block_symbols(integers, block, signs, past)
        return found, np.concatenate(far)

    assert np.array_equal(np.abs(same(flipped)), np.abs(integers))
    same(lambda: symbols()[0])
    same(lambda: symbols()[1])


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("has_past", PASTS)
def test_classes_and_contexts_of_all_tensors_are_the_same(shapes, has_past):
    _, block, scales, past = block_of(shapes, 4)
    known = past if has_past else None
    same(lambda: block_classes(scales, block, known)[0])
    if has_past:
        same(lambda: block_classes(scales, block, past)[1])
    for own in ContextMap(0, 0, 80, False), ContextMap(2, 6, 5, has_past):
        same(lambda own=own: block_contexts(scales, block, own, known))


@settings(max_examples=100)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 7, 300]), max_size=5),
    bits=st.sampled_from([1, 3, 12, 31, 32]),
    seed=st.integers(0, 1000),
)
def test_groups_are_the_same_and_come_back(sizes, bits, seed):
    rng = np.random.default_rng(seed)
    most = 1 << (bits - 1)
    groups = [rng.integers(-most, most, n).astype(np.int32) for n in sizes]
    groups = [group * (rng.random() < 0.8) for group in groups]
    data = same(lambda: encode_groups(groups))
    held = b"before" + data + b"behind"

    def decoded() -> Any:
        found, end = decode_groups(held, 6, sizes)
        return found.tolist(), end

    found, end = same(decoded)
    assert found == [int(v) for group in groups for v in group]
    assert end == 6 + len(data)


@settings(max_examples=300)
@given(seed=st.integers(0, 100_000))
def test_malformed_groups_are_refused_in_the_same_words(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 12, 3).tolist()
    groups = [np.rint(rng.laplace(size=n) * 9).astype(np.int32) for n in sizes]
    data = bytearray(encode_groups(groups))
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data)))
        if rng.random() < 0.2:
            data = data[: at + 1]
        else:
            data[at] = int(rng.choice([0, 1, 31, 32, 255, data[at] ^ 16]))

    def outcome() -> Any:
        try:
            found, end = decode_groups(bytes(data), 0, sizes)
        except CodecError as err:
            return str(err)
        return found.tolist(), end

    same(outcome)


def test_a_block_is_described_once():
    specs = [TensorSpec("a", "float32", (9, 200)), TensorSpec("b", "float32", (4,))]
    block = BlockShape.of(specs)
    assert block is BlockShape.of(specs)
    assert block.shapes == tuple(as_channels(spec.shape) for spec in specs)
    assert block.parts == (slice(0, 1800), slice(1800, 1804))
    assert [len(block.kinds[part]) for part in block.scales] == [10, 1]
