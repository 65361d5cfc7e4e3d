"""Headers survive the wire, and nothing but a CodecError comes of a bad one."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.sync.protocol import (
    STATUSES,
    DownloadHeader,
    UploadHeader,
    device_id,
    model_digest,
)

u64 = st.integers(0, (1 << 64) - 1)
u63 = st.integers(0, (1 << 63) - 1)
ids = st.lists(u64.filter(bool), unique=True, max_size=16).map(tuple)
versions = st.tuples(u63, st.binary(min_size=8, max_size=8))
devices = st.just("") | st.binary(min_size=16, max_size=16).map(device_id)
downloads = st.builds(
    DownloadHeader,
    lineage=u64.filter(bool),
    order=st.tuples(u63, u63),
    nonce=u64,
    target=versions,
    base=st.none() | versions,
    device=devices,
    applied=ids,
    memory=st.binary(min_size=8, max_size=8),
)
uploads = st.sampled_from(sorted(STATUSES)).flatmap(
    lambda status: st.builds(
        UploadHeader,
        lineage=u64.filter(bool),
        order=st.tuples(u63, u63),
        nonce=u64,
        token=st.binary(min_size=16, max_size=16),
        status=st.just(status),
        held=st.none() | versions,
        base=st.none() | versions,
        upload_id=u64.filter(bool) if status == "update" else st.just(0),
        known=ids,
    )
)


@given(downloads | uploads)
def test_headers_come_back_from_a_config_record(header):
    record = ConfigRecord({**header.to_dict(), "protocol": 1})
    assert type(header).from_dict(record) == header


@given(downloads | uploads, st.data())
def test_a_damaged_header_is_refused(header, data):
    (name, value), *none = header.to_dict().items()
    assert not none
    at = data.draw(st.integers(0, len(value) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]
    for other in (flipped, value[:at], value + b"x", "text", None, b""):
        with pytest.raises(CodecError):
            type(header).from_dict({name: other})


@given(downloads | uploads, st.binary(max_size=300))
def test_whatever_bears_a_right_checksum_is_a_header_or_refused(header, data):
    sealed = data + zlib.crc32(data).to_bytes(4, "big")
    try:
        found = type(header).from_dict({"header": sealed})
    except CodecError:
        return
    assert type(header).from_dict(found.to_dict()) == found


def test_a_header_costs_little():
    order, version = (1 << 60, 5), (3, b"12345678")
    down = DownloadHeader(1, order, 2, version, version, "a" * 32, (7,))
    up = UploadHeader(1, order, 2, b"t" * 16, "update", version, version, 9, (7,))
    assert len(down.to_dict()["header"]) == 103
    assert len(up.to_dict()["header"]) == 104


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
