"""Bytes made of those before and what changed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.sync import change
from flwr_caesar.sync.change import (
    DATA,
    SIZES,
    apply_change,
    apply_changes,
    pack_changes,
)
from flwr_caesar.sync.errors import DamagedStateError


@given(st.lists(st.binary(min_size=99, max_size=99), min_size=1), st.integers(0, 99))
def test_changes_make_the_new_bytes_of_the_old(versions: list[bytes], size: int):
    steps = [np.frombuffer(data[:size], np.uint8) for data in versions]
    changes = list(pack_changes(pairwise(steps)))
    block = steps[0].copy()
    apply_changes(block, changes)
    assert block.tobytes() == steps[-1].tobytes()
    assert [c == b"" for c in changes] == [
        old.tobytes() == new.tobytes() for old, new in pairwise(steps)
    ]


@pytest.mark.parametrize("change", [b"no", b"(\xb5/\xfd\x00"])
def test_a_block_that_did_not_change_so_is_refused(change: bytes) -> None:
    with pytest.raises(DamagedStateError):
        apply_changes(np.zeros(64, np.uint8), [change])
    short = next(pack_changes([(np.zeros(8, np.uint8), np.ones(8, np.uint8))]))
    with pytest.raises(DamagedStateError):
        apply_changes(np.zeros(64, np.uint8), [short])


@pytest.mark.parametrize(
    "lie",
    [
        {SIZES: np.array([[64], [5]])},
        {SIZES: np.array([[change._BLOCK + 1], [5]])},
        {SIZES: np.array([[-64, 128], [5, 5]])},
        {SIZES: np.array([64])},
        {SIZES: np.array([[64.0], [5.0]])},
        {DATA: np.zeros(5, np.uint8)},
        {DATA: None},
    ],
)
def test_a_change_of_format_4_that_is_none_is_refused(
    lie: dict[str, np.ndarray],
) -> None:
    image = np.arange(64, dtype=np.uint8)
    data = next(pack_changes([(image, image + 1)]))
    good = {
        DATA: np.frombuffer(data, np.uint8),
        SIZES: np.array([[64], [len(data)]]),
    }
    found = image.copy()
    apply_change(found, good)
    assert (found == image + 1).all()
    parts = {key: value for key, value in {**good, **lie}.items() if value is not None}
    with pytest.raises(DamagedStateError):
        apply_change(image.copy(), parts)
