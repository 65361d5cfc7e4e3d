"""Headers survive the wire, and nothing but a CodecError comes of a bad one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.sync.protocol import (
    STATUSES,
    TELLS_HELD,
    UPDATE,
    DownloadHeader,
    UploadHeader,
    device_id,
    model_digest,
)
from flwr_caesar.sync.wire import Reader, opened, sealed, varint

u64 = st.integers(0, (1 << 64) - 1)
u63 = st.integers(0, (1 << 63) - 1)
ids = st.lists(u64.filter(bool), unique=True, max_size=4).map(tuple)
many = st.lists(u64.filter(bool), unique=True, max_size=20).map(tuple)
versions = st.tuples(u63, st.binary(min_size=8, max_size=8))
devices = st.just("") | st.binary(min_size=16, max_size=16).map(device_id)
downloads = devices.flatmap(
    lambda device: st.builds(
        DownloadHeader,
        lineage=u64.filter(bool),
        order=st.tuples(u63, u63),
        nonce=u64,
        target=versions,
        base=st.none() | versions,
        device=st.just(device),
        applied=ids if device else st.just(()),
        memory=st.binary(min_size=8, max_size=8),
        longest=st.floats(0, 2.0**127, width=32),
    )
)
uploads = st.sampled_from(sorted(STATUSES)).flatmap(
    lambda status: st.builds(
        UploadHeader,
        nonce=u64,
        token=st.binary(min_size=16, max_size=16),
        status=st.just(status),
        held=st.none() | versions if status in TELLS_HELD else st.none(),
        upload_id=u64.filter(bool) if status == UPDATE else st.just(0),
        known=st.none() | many if status == UPDATE else st.none(),
    )
)


@given(downloads | uploads)
def test_headers_come_back_from_the_wire(header):
    assert type(header).from_bytes(header.to_bytes()) == header


@given(downloads | uploads, st.data())
def test_a_damaged_header_is_refused(header, data):
    value = sealed(header.to_bytes())
    at = data.draw(st.integers(0, len(value) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]
    for other in (flipped, value[:at], value + b"x", "text", None, b"", 7):
        with pytest.raises(CodecError):
            opened(other)


@given(downloads | uploads, st.binary(max_size=300))
def test_whatever_is_read_is_a_header_as_we_write_it_or_refused(header, data):
    try:
        found = type(header).from_bytes(data)
    except CodecError:
        return
    assert found.to_bytes() == data


@given(st.lists(u63, max_size=5))
def test_numbers_come_back_and_have_one_form(numbers):
    reader = Reader(b"".join(map(varint, numbers)))
    assert [reader.varint() for _ in numbers] == numbers
    reader.require_end()
    for longer in (b"\x80\x00", b"\xff" * 9, b"\x80"):
        with pytest.raises(CodecError):
            Reader(longer).varint()


def test_a_header_costs_little():
    order, version = (1 << 60, 5), (3, b"12345678")
    down = DownloadHeader(1, order, 2, version, version, "a" * 32, (7,))
    up = UploadHeader(2, b"t" * 16, UPDATE, upload_id=9)
    assert len(down.to_bytes()) == 60
    assert len(up.to_bytes()) == 33
    assert len(UploadHeader(2, b"t" * 16, "evaluated").to_bytes()) == 25


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.zeros(4, np.float32)},
        {"v": np.zeros(3, np.float32)},
        {"w": np.zeros(3, np.int32)},
        {"w": np.array([0, 0, 1], np.float32)},
    ],
)
def test_model_digest_names_names_dtypes_shapes_and_values(other):
    model = {"w": np.zeros(3, np.float32)}
    assert len(model_digest(model)) == 8
    assert model_digest(model) != model_digest(other)


def test_model_digest_is_of_the_values_not_their_storage():
    array = np.arange(6.0).reshape(2, 3)
    swapped = array.astype(">f8")
    assert model_digest({"w": array}) == model_digest({"w": swapped})
    turned = np.asfortranarray(array)
    assert model_digest({"w": array}) == model_digest({"w": turned})
    assert model_digest({"w": np.array(1.5)}) != model_digest({"w": np.array(2.5)})
