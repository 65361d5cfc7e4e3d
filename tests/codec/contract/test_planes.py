"""Elements are read into their place a piece at a time, and only what was written."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.planes import (
    PIECE,
    decompress,
    decompress_elements,
    shuffle,
    unshuffle,
)

WEIGHTS = np.random.default_rng(0).normal(0, 0.02, 900_001).astype(np.float32)


def packed(data: bytes, itemsize: int, **how: bool) -> bytes:
    return zstandard.ZstdCompressor(level=3, **how).compress(shuffle(data, itemsize))


@given(st.binary(max_size=80), st.sampled_from([1, 2, 4, 8]))
def test_shuffle_is_undone(data: bytes, itemsize: int) -> None:
    data = data * itemsize
    assert unshuffle(shuffle(data, itemsize), itemsize) == data


def test_shuffle_puts_equal_byte_places_together() -> None:
    assert shuffle(b"abcdABCD", 4) == b"aAbBcCdD"


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 5, PIECE // 8, PIECE // 2 + 1, 3 * PIECE // 8])
@pytest.mark.parametrize("has_sum", [False, True])
def test_elements_are_read_into_their_place(
    itemsize: int, count: int, has_sum: bool
) -> None:
    data = np.resize(WEIGHTS, count * itemsize).tobytes()[: count * itemsize]
    stored = packed(data, itemsize, write_checksum=has_sum)
    found = decompress_elements(memoryview(stored), len(data), itemsize)
    assert found.tobytes() == data
    assert found.flags.writeable


def test_runs_of_one_byte_and_stored_blocks_are_walked_over() -> None:
    noise = np.random.default_rng(0).integers(0, 256, PIECE, np.uint8)
    data = np.concatenate([np.zeros(2 * PIECE, np.uint8), noise]).tobytes()
    stored = zstandard.ZstdCompressor().compress(data)
    assert decompress_elements(stored, len(data), 1).tobytes() == data


def test_a_window_as_long_as_the_content_is_read_at_once() -> None:
    data = WEIGHTS.tobytes() * 4
    how = zstandard.ZstdCompressionParameters(window_log=25, compression_level=1)
    stored = zstandard.ZstdCompressor(compression_params=how).compress(shuffle(data, 4))
    assert zstandard.get_frame_parameters(stored).window_size > 8 << 20
    assert decompress_elements(stored, len(data), 4).tobytes() == data


def test_little_is_held_beside_the_elements() -> None:
    data = WEIGHTS.tobytes() * 4
    stored = packed(data, 4)
    tracemalloc.start()
    try:
        decompress_elements(stored, len(data), 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * len(data)


@pytest.mark.parametrize("has_sum", [False, True])
def test_what_is_no_whole_frame_is_refused(has_sum: bool) -> None:
    data = WEIGHTS.tobytes()
    stored = packed(data, 4, write_checksum=has_sum)
    cut = len(stored) // 2
    flipped = stored[:cut] + bytes([stored[cut] ^ 255]) + stored[cut + 1 :]
    for wrong in (
        *(stored[:n] for n in (0, 3, 12, 17, cut, len(stored) - 1)),
        *(stored + more for more in (b"\0", stored)),
        *([flipped] if has_sum else []),
    ):
        with pytest.raises(CodecError):
            decompress_elements(wrong, len(data), 4)
        with pytest.raises(CodecError):
            decompress(wrong, len(data))
    for raw in (len(data) - 4, len(data) + 4):
        with pytest.raises(CodecError, match="another size"):
            decompress_elements(stored, raw, 4)


@pytest.mark.parametrize("claimed", [2 * PIECE, 4 * PIECE])
def test_a_content_of_another_length_than_the_head_says_is_refused(
    claimed: int,
) -> None:
    stored = bytearray(zstandard.ZstdCompressor().compress(bytes(3 * PIECE)))
    at = stored.index((3 * PIECE).to_bytes(4, "little"))
    stored[at : at + 4] = claimed.to_bytes(4, "little")
    with pytest.raises(CodecError):
        decompress_elements(bytes(stored), claimed, 4)
