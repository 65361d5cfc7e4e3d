"""Which blocks of a model are written whole when, and how a file has them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.sync.blocks import TURNS, Image, cut, due
from flwr_caesar.sync.model_file import MOST_FILES


@given(st.lists(st.binary(max_size=9)), st.data())
def test_an_image_is_its_pieces_together(pieces: list[bytes], data: st.DataObject):
    whole = b"".join(pieces)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    if begin < end:
        assert Image(pieces).part(begin, end).tobytes() == whole[begin:end]


@pytest.mark.parametrize("size", [0, 1, 4095, 1 << 20, (1 << 20) + 1, 44_000_000])
def test_blocks_are_all_of_a_model(size: int) -> None:
    blocks = cut(size)
    assert sum(end - begin for begin, end in blocks) == size
    assert all(end == begin for (_, end), (begin, _) in pairwise(blocks))
    if size > 1 << 20:
        assert len(blocks) >= TURNS


@given(st.data())
def test_no_file_is_needed_for_long(data: st.DataObject) -> None:
    """Whatever changes when, no block is more than `MOST_FILES` files back."""
    count = data.draw(st.integers(1, 40))
    starts, changed = [0] * count, [False] * count
    for number in range(1, 40):
        for block in data.draw(st.sets(st.integers(0, count - 1))):
            changed[block] = True
        has_change = [block for block in range(count) if changed[block]]
        for block in due(starts, has_change, spared=0):
            starts[block], changed[block] = number, False
        active = [at for block, at in enumerate(starts) if at or changed[block]]
        assert len(set(active)) <= MOST_FILES
