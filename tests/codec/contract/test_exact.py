"""Exact sections are bit-exact and refuse bytes that are no tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.codec.contract.exact import pack_exact, split_exact, unpack_exact
from flwr_caesar.codec.contract.frame import FrameReader, Section, write_frame

from ..strategies import Array, bits, models


def reader_of(sections: list[Section]) -> FrameReader:
    return FrameReader(
        write_frame(config={"id": "x"}, layout_digest=bytes(16), sections=sections)
    )


@given(models())
def test_tensors_are_bit_exact_and_writable(model: dict[str, Array]) -> None:
    specs = Layout.of(model).tensors
    decoded = unpack_exact(reader_of(pack_exact(model, specs)), specs)
    assert decoded.keys() == model.keys()
    for name, array in decoded.items():
        assert bits(array) == bits(model[name])
        assert array.flags.writeable
        assert array.flags.aligned


def test_only_large_floating_point_tensors_are_lossy() -> None:
    model: dict[str, Array] = {
        "small": np.zeros(9, np.float32),
        "large": np.zeros(10, np.float16),
        "ints": np.zeros(100, np.int64),
        "mask": np.zeros(100, bool),
        "empty": np.zeros((0, 100), np.float64),
    }
    exact, lossy = split_exact(Layout.of(model), 10)
    assert [s.name for s in lossy] == ["large"]
    assert [s.name for s in exact] == ["small", "ints", "mask", "empty"]
    for below in (0, -5):
        _, lossy = split_exact(Layout.of(model), below)
        assert [s.name for s in lossy] == ["small", "large"]


@pytest.mark.parametrize("value", [2, 128, 255])
def test_a_byte_that_is_no_bool_is_refused(value: int) -> None:
    specs = Layout.of({"mask": np.zeros(3, bool)}).tensors
    reader = reader_of([Section("X1", bytes([0, 1, value]))])
    with pytest.raises(CodecError, match="'mask'"):
        unpack_exact(reader, specs)


def test_a_missing_or_short_section_is_refused() -> None:
    specs = Layout.of({"a": np.zeros(3, np.float32)}).tensors
    for sections in ([], [Section("X4", bytes(11))], [Section("X8", bytes(12))]):
        with pytest.raises(CodecError, match="X4"):
            unpack_exact(reader_of(sections), specs)
