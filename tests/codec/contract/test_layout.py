"""The tensor table round-trips, and a table that lies is refused cheaply."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, Layout, TensorSpec, update_layout
from flwr_caesar.codec.contract.layout import DTYPE_CODES, to_dtype

from ..strategies import Array, dtypes, models, names, numpy_dtype

specs = st.builds(
    TensorSpec,
    names,
    dtypes,
    st.lists(st.integers(0, 2**15), max_size=3).map(tuple),
)
layouts = st.lists(specs, unique_by=lambda s: s.name, max_size=6).map(
    lambda tensors: Layout(tuple(tensors))
)


def table(count: int, *entries: bytes) -> bytes:
    return struct.pack("<I", count) + b"".join(entries)


def entry(name: bytes, code: int, *shape: int) -> bytes:
    head = struct.pack("<H", len(name)) + name + struct.pack("<BB", code, len(shape))
    return head + struct.pack(f"<{len(shape)}Q", *shape)


@given(layouts)
def test_a_table_is_its_bytes(layout: Layout) -> None:
    again = Layout.from_bytes(layout.to_bytes())
    assert again == layout
    assert again.digest == layout.digest
    assert len(layout.digest) == 16


@given(layouts, layouts)
def test_digests_tell_tables_apart(a: Layout, b: Layout) -> None:
    assert (a.digest == b.digest) == (a == b)


@given(models())
def test_sizes_are_numpys(model: dict[str, Array]) -> None:
    layout = Layout.of(model)
    assert layout.nbytes == sum(array.nbytes for array in model.values())
    assert layout.num_params == sum(array.size for array in model.values())
    assert [spec.name for spec in layout.tensors] == list(model)


@pytest.mark.parametrize("name", DTYPE_CODES)
def test_wire_dtypes_are_little_endian(name: str) -> None:
    dtype = to_dtype(name)
    assert dtype.name == name
    assert dtype.itemsize == numpy_dtype(name).itemsize
    assert dtype.byteorder != ">"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, np.complex64),
        np.array([None, 1], object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, [("field", "f4")]),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda array: array.dtype.name,
)
def test_other_dtypes_are_refused_by_tensor_name(array: Array) -> None:
    with pytest.raises(CodecError, match="'culprit' has dtype"):
        Layout.of({"fine": np.zeros(1, np.float32), "culprit": array})


def test_same_shapes_looks_at_names_shapes_and_order_only() -> None:
    a, b = TensorSpec("a", "int8", (2,)), TensorSpec("b", "bool", (3, 1))
    wide = TensorSpec("a", "float64", (2,))
    assert Layout((a, b)).same_shapes(Layout((wide, b)))
    assert not Layout((a, b)).same_shapes(Layout((b, a)))
    assert not Layout((a, b)).same_shapes(Layout((a,)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TensorSpec("x" * 65536, "bool", ()), "too long"),
        (TensorSpec("x", "bool", (1,) * 33), "33 axes"),
        (TensorSpec("\ud800", "bool", ()), "not Unicode"),
    ],
)
def test_what_the_table_cannot_hold_is_refused(spec: TensorSpec, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Layout((spec,)).to_bytes()


def test_too_many_tensors_are_refused_on_both_sides() -> None:
    many = Layout(tuple(TensorSpec(str(i), "bool", ()) for i in range(65537)))
    with pytest.raises(CodecError, match="65537 tensors"):
        many.to_bytes()
    with pytest.raises(CodecError, match="claims 65537"):
        Layout.from_bytes(table(65537))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\0",
        table(2**32 - 1),
        table(1),
        table(0, b"\0"),
        table(1, entry(b"a", 0), b"\0"),
        table(2, entry(b"a", 0)),
        table(2, entry(b"a", 0), entry(b"a", 1)),
        table(1, entry(b"a", 13)),
        table(1, entry(b"\xff", 0)),
        table(1, struct.pack("<H", 9) + b"short"),
        table(1, entry(b"a", 0, *(1,) * 33)),
        table(1, entry(b"a", 0, 2**63)),
        table(1, entry(b"a", 0, 0, 2**64 - 1)),
        table(1, entry(b"a", 12, 2**32, 2**32)),
        table(1, entry(b"a", 12, *(2**64 - 1,) * 32)),
    ],
)
def test_a_lying_table_is_refused(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            Layout.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        assert Layout.from_bytes(data).to_bytes() == data


@given(models())
def test_a_model_is_described_once(model: dict[str, Array]) -> None:
    layout = Layout.of(model)
    assert Layout.of({name: array.copy() for name, array in model.items()}) is layout
    assert update_layout(layout) is update_layout(layout)
