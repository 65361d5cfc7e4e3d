"""The compiled kernel refuses arrays that do not fit, and reads and writes no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import kernel
from flwr_caesar.codec.coding.integers import to_symbols

Array = np.ndarray[Any, Any]
NATIVE = kernel.native

pytestmark = pytest.mark.skipif(NATIVE is None, reason=kernel.in_use)


def zeros(n: int, dtype: str) -> Array:
    return np.zeros(n, dtype)


def pull_arguments() -> list[Any]:
    frequencies = np.full((1, 4), 4096, np.uint16)
    states = np.full(2, 1 << 16, np.uint32)
    return [states, zeros(3, "u2"), zeros(9, "u2"), zeros(9, "u1"), frequencies, 4, 1]


def push_arguments() -> list[Any]:
    table = np.zeros(512, np.uint32)
    table[:4] = 4096 << 16 | np.arange(4) * 4096
    states = np.full(2, 1 << 16, np.uint32)
    return [states, zeros(9, "u2"), zeros(9, "u1"), table, zeros(10, "u2"), 1]


def far_arguments() -> tuple[Array, Array, Array, Array]:
    """Return integers far from 0, their symbols, where raw bits are, and room."""
    values = np.full(9, 100, np.int32)
    starts = np.zeros(29, np.int64)
    starts[2:] = 4
    return values, to_symbols(values), starts, zeros(4, "u1")


def raw_bits_arguments() -> list[Any]:
    return [*far_arguments(), 4]


def far_integers_arguments() -> list[Any]:
    values, symbols, starts, bits = far_arguments()
    return [symbols, starts, bits, values, 4]


SHAPE = (2, 3, 4)


def rows(**changes: int) -> Array:
    """Return the rows of two tensors, with some numbers changed."""
    found = np.array([[*SHAPE, 0b110], [5, 1, 1, 0]], np.int64)
    for place, value in changes.items():
        found[int(place[1]), int(place[2])] = value
    return found


ARGUMENTS: dict[str, Callable[[], list[Any]]] = {
    "push": push_arguments,
    "pull": pull_arguments,
    "symbols": lambda: [zeros(9, "i4"), zeros(9, "u2"), 4],
    "octaves": lambda: [zeros(9, "u2"), zeros(28, "i8"), 2],
    "raw_bits": raw_bits_arguments,
    "near": lambda: [zeros(9, "u2"), zeros(28, "i8"), zeros(9, "i4"), 2],
    "far": far_integers_arguments,
    "count": lambda: [zeros(9, "u2"), zeros(9, "u1"), zeros(8, "i8"), 4],
    "mark": lambda: [zeros(9, "u1"), zeros(256, "u1")],
    "sums": lambda: [np.zeros(SHAPE, "f4"), *(zeros(n, "f8") for n in SHAPE)],
    "energy": lambda: [zeros(9, "f4")],
    "classes": lambda: [
        0,
        *(zeros(n, "i2") for n in SHAPE),
        *SHAPE,
        np.zeros(SHAPE, "u1"),
    ],
    "merge": lambda: [zeros(9, "u1"), 1, 0, 40, zeros(9, "u1")],
    "lost": lambda: [zeros(9, "f4"), 0.5, 0.5],
    "sample": lambda: [
        *(zeros(9, "f4"), zeros(9, "i2")),
        *(3, 1.0, 0.5, zeros(9, "u2"), zeros(9, "u1")),
    ],
    "quantise": lambda: [zeros(9, "f4"), 1.0, 0.5, zeros(9, "i4")],
    "values": lambda: [zeros(9, "i4"), 1.0, 4.0],
    "write_groups": lambda: [zeros(9, "i4"), np.array([4, 0, 5]), zeros(64, "u1")],
    "read_groups": lambda: [
        zeros(64, "u1") + np.uint8(255),
        0,
        np.array([4, 5]),
        zeros(9, "i4"),
    ],
    "block_sums": lambda: [
        *(zeros(29, "i4"), rows(), zeros(9, "f8"), zeros(11, "i8"), zeros(2, "i8")),
    ],
    "block_flip": lambda: [
        *(zeros(29, "i4"), rows(), np.array([1, 2], np.uint8), zeros(3, "u1")),
    ],
    "block_contexts": lambda: [zeros(9, "i2"), rows(), 1, 0, 40, zeros(29, "u1")],
}


def starts_with(**changes: int) -> Array:
    """Return where raw bits are, with one of them elsewhere."""
    starts = far_arguments()[2].copy()
    for name, value in changes.items():
        starts[int(name[1:])] = value
    return starts


MANTISSAS = [
    *(("symbols", 2), ("octaves", 2), ("raw_bits", 4), ("near", 3), ("far", 4)),
]
WRONG = [
    ("push", 0, zeros(0, "u4")),
    ("push", 1, zeros(8, "u2")),
    ("push", 2, zeros(8, "u1")),
    ("push", 2, np.full(9, 1, np.uint8)),
    ("push", 1, np.full(9, 4, np.uint16)),
    ("push", 1, np.full(9, 600, np.uint16)),
    ("push", 3, zeros(511, "u4")),
    ("push", 3, np.full(512, 0xFFFFFFFF, np.uint32)),
    ("push", 4, zeros(9, "u2")),
    ("pull", 0, zeros(0, "u4")),
    ("pull", 3, zeros(8, "u1")),
    ("pull", 3, np.full(9, 1, np.uint8)),
    ("pull", 4, np.full((1, 4), 4095, np.uint16)),
    ("pull", 4, np.full((1, 4), 65535, np.uint16)),
    ("pull", 4, zeros(4, "u2")),
    ("pull", 4, zeros(0, "u2")),
    ("pull", 4, zeros(3, "u2")),
    ("pull", 4, zeros(257 * 4, "u2")),
    ("pull", 5, 0),
    ("pull", 5, 513),
    ("pull", 5, -1),
    ("symbols", 1, zeros(8, "u2")),
    ("octaves", 0, np.full(9, 128, np.uint16)),
    *(
        (name, place, bits)
        for name, place in MANTISSAS
        for bits in (0, 3, 5, 2**32 + 2)
    ),
    ("octaves", 1, zeros(27, "i8")),
    *(
        (name, place, value)
        for name, symbols, starts, bits in (
            ("raw_bits", 1, 2, 3),
            ("far", 0, 1, 2),
        )
        for place, value in (
            (symbols, zeros(8, "u2")),
            (symbols, np.full(9, 600, np.uint16)),
            (starts, zeros(28, "i8")),
            (starts, starts_with(_1=-1)),
            (starts, starts_with(_1=1)),
            (starts, starts_with(_2=3)),
            (starts, starts_with(_2=5)),
            (starts, starts_with(_28=5)),
            (starts, starts_with(_28=2**62)),
            (bits, zeros(3, "u1")),
        )
    ),
    ("raw_bits", 0, zeros(8, "i4")),
    ("far", 3, zeros(8, "i4")),
    ("near", 0, np.full(9, 128, np.uint16)),
    ("near", 1, zeros(27, "i8")),
    ("near", 2, zeros(8, "i4")),
    ("count", 0, np.full(9, 4, np.uint16)),
    ("count", 1, np.full(9, 2, np.uint8)),
    ("count", 1, zeros(8, "u1")),
    ("count", 2, zeros(9, "i8")),
    ("count", 2, zeros(0, "i8")),
    ("count", 3, 0),
    ("count", 3, 3),
    ("mark", 1, zeros(255, "u1")),
    *(("sums", place, zeros(n, "f8")) for place in (1, 2, 3) for n in (0, 1, 5)),
    ("sums", 0, zeros(0, "f4")),
    ("classes", 0, 1 << 15),
    *(("classes", place, zeros(1, "i2")) for place in (1, 2, 3)),
    *(("classes", place, n) for place in (4, 5, 6) for n in (-2, 0, 1, 2**62)),
    ("classes", 7, zeros(23, "u1")),
    ("merge", 1, 8),
    ("merge", 1, -1),
    ("merge", 2, -1),
    ("merge", 2, 41),
    ("merge", 3, 256),
    ("merge", 4, zeros(8, "u1")),
    ("sample", 1, zeros(8, "i2")),
    ("sample", 2, 2**16),
    ("sample", 2, -(2**16)),
    ("sample", 5, zeros(8, "u2")),
    ("sample", 6, zeros(8, "u1")),
    ("quantise", 3, zeros(8, "i4")),
    *(("write_groups", 0, zeros(n, "i4")) for n in (0, 8, 10)),
    *(
        (name, place, np.array(sizes))
        for name, place in (("write_groups", 1), ("read_groups", 2))
        for sizes in ([4, 4], [-1, 10], [2**62, 2**62], [9, 1])
    ),
    ("write_groups", 2, zeros(2, "u1")),
    ("read_groups", 1, -1),
    ("read_groups", 1, 65),
    ("read_groups", 3, zeros(8, "i4")),
    *(
        (name, 1, rows(**{place: value}))
        for name in ("block_sums", "block_flip", "block_contexts")
        for place in ("_00", "_01", "_12")
        for value in (-1, 0, 9, 2**31, 2**62)
    ),
    *(
        (name, 1, rows(_03=mask))
        for name in ("block_sums", "block_contexts")
        for mask in (-1, 0, 1, 7, 8)
    ),
    *((name, 1, rows()[:1]) for name in ("block_sums", "block_flip", "block_contexts")),
    *(
        ("block_sums", place, zeros(n, "f8" if place == 2 else "i8"))
        for place in (2, 3, 4)
        for n in (0, 1, 13)
    ),
    ("block_sums", 0, zeros(28, "i4")),
    ("block_flip", 0, zeros(28, "i4")),
    ("block_flip", 2, np.array([1, 3], np.uint8)),
    ("block_flip", 2, np.array([1, 1], np.uint8)),
    ("block_flip", 2, zeros(3, "u1")),
    *(("block_flip", 3, zeros(n, "u1")) for n in (0, 2, 4)),
    *(("block_contexts", 0, zeros(n, "i2")) for n in (0, 8, 10)),
    ("block_contexts", 2, 8),
    ("block_contexts", 3, 41),
    ("block_contexts", 4, 256),
    ("block_contexts", 5, zeros(28, "u1")),
]


@pytest.mark.parametrize(
    ("name", "place", "value"), WRONG, ids=[f"{i}" for i in range(len(WRONG))]
)
def test_wrong_lengths_and_contents_are_errors_and_reach_no_memory(name, place, value):
    function = getattr(NATIVE, name)
    arguments = ARGUMENTS[name]()
    assert function(*arguments) >= 0
    arguments = ARGUMENTS[name]()
    arguments[place] = value
    with pytest.raises(ValueError, match=r"do not match|out of range"):
        function(*arguments)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_other_kinds_of_arguments_are_errors(name):
    function = getattr(NATIVE, name)
    good = ARGUMENTS[name]()
    with pytest.raises(TypeError, match="arguments"):
        function(*good[:-1])
    for place, value in enumerate(good):
        for wrong in None, zeros(9, "c16"), zeros(18, "u4")[::2], "text", 2**2000:
            arguments = [*good]
            arguments[place] = wrong
            with pytest.raises((TypeError, ValueError, BufferError, OverflowError)):
                function(*arguments)
        if isinstance(value, np.ndarray):
            swapped = value.astype(value.dtype.newbyteorder())
            arguments = [*good]
            arguments[place] = swapped
            if value.dtype.itemsize > 1:
                with pytest.raises(TypeError, match="kind"):
                    function(*arguments)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(("push", 0), ("push", 4), ("pull", 0), ("pull", 2), ("symbols", 1)),
        *(("octaves", 1), ("raw_bits", 3), ("far", 3), ("count", 2), ("mark", 1)),
        *(("sums", 1), ("sums", 2), ("sums", 3), ("classes", 7), ("merge", 4)),
        *(
            ("quantise", 3),
            ("values", 0),
            ("near", 1),
            ("near", 2),
            ("sample", 5),
            ("sample", 6),
        ),
        *(("write_groups", 2), ("read_groups", 3), ("block_flip", 0)),
        *(("block_sums", place) for place in (2, 3, 4)),
        ("block_contexts", 5),
    ],
)
def test_what_is_written_has_to_be_writable(name, place):
    arguments = ARGUMENTS[name]()
    arguments[place].flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        getattr(NATIVE, name)(*arguments)
