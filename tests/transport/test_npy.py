"""Arrays come out of Flower's form as they went in, and what is odd is Flower's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from flwr.app import Array

from flwr_caesar.transport.npy import from_flower, to_flower

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.arange(6, dtype=np.float16),
    np.array(3, np.int64),
    np.zeros((0, 4), np.float32),
    np.array([True, False]),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::2],
    np.arange(4, dtype=">f4"),
    np.array([1 + 2j]),
    np.array(["text"]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=range(len(ARRAYS)))
def test_the_bytes_are_those_of_flower(array):
    plain, ours = Array(array), to_flower(array)
    assert (ours.dtype, ours.shape, ours.stype) == (
        plain.dtype,
        plain.shape,
        plain.stype,
    )
    assert ours.data == plain.data
    found, expected = from_flower(plain), plain.numpy()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def test_elements_are_not_copied():
    array = to_flower(np.ones(1000, np.float32))
    found = from_flower(array)
    assert np.shares_memory(found, np.frombuffer(array.data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 2


def npy(head: str, elements: bytes = bytes(8)) -> bytes:
    text = head.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + elements


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }"),
        npy("{'descr': '<b4', 'fortran_order': False, 'shape': (2,), }"),
        npy("{'descr': '|O8', 'fortran_order': False, 'shape': (1,), }"),
        npy(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 17 + ",), }"
        ),
        npy("__import__('os')"),
    ],
    ids=range(8),
)
def test_what_is_malformed_is_refused_as_flower_does(data):
    array = Array("float32", (2,), "numpy.ndarray", data)
    with pytest.raises((ValueError, EOFError, TypeError, MemoryError)) as expected:
        array.numpy()
    with pytest.raises(expected.type):
        from_flower(array)


@pytest.mark.parametrize("more", [b"", b"x"])
def test_bytes_behind_the_elements_change_nothing(more):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3, dtype=np.float32))
    array = Array("float32", (3,), "numpy.ndarray", buffer.getvalue() + more)
    assert from_flower(array).tolist() == [0, 1, 2]
