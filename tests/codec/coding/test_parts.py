"""More symbols than a stream holds: in parts, read by a reader of the document, too."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec
from flwr_caesar.codec.coding import parts, rans
from flwr_caesar.codec.coding.integers import decode_integers, encode_integers
from flwr_caesar.codec.contract import vector
from flwr_caesar.codec.published.lattice_model import publish_model

from .. import plain_codecs, plain_symbols


@pytest.fixture
def small(monkeypatch):
    """Streams of at most 1,000 symbols, parts of 700."""
    for module in (parts, plain_symbols):
        monkeypatch.setattr(module, "MOST_SYMBOLS", 1000)
        monkeypatch.setattr(module, "PART", 700)


def drawn(n):
    rng = np.random.default_rng(n)
    values = np.rint(rng.laplace(0, 20, n)).astype(np.int32)
    return values, rng.integers(0, 3, n).astype(np.uint8)


@pytest.mark.parametrize("n", [1000, 1001, 1400, 2101])
def test_integers_in_parts_come_back(small, n):
    values, contexts = drawn(n)
    data = encode_integers(values, contexts, 3)
    assert (decode_integers(data, contexts, 3) == values).all()
    theirs = plain_symbols.read_integers(data, contexts.tolist(), 3)
    assert theirs == values.tolist()


def test_up_to_the_limit_nothing_changes(small, monkeypatch):
    values, contexts = drawn(1000)
    in_one = encode_integers(values, contexts, 3)
    monkeypatch.setattr(parts, "MOST_SYMBOLS", 999)
    assert encode_integers(values, contexts, 3) != in_one
    monkeypatch.undo()
    assert encode_integers(values, contexts, 3) == in_one


def test_the_limit_is_that_of_a_stream():
    assert parts.MOST_SYMBOLS == rans.MAX_ROWS * (2**16 - 1) == 134_215_680
    assert parts.PART <= parts.MOST_SYMBOLS


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:4],
        lambda data: struct.pack("<Q", 1 << 40) + data[8:],
        lambda data: struct.pack("<Q", 0) + data[8:],
        lambda data: data[len(data) // 2 :],
    ],
)
def test_damaged_parts_are_refused(small, damage):
    values, contexts = drawn(1500)
    symbols = np.abs(values).astype(np.uint16) % 512
    data = parts.encode_parts(symbols, contexts, 3)
    assert (parts.decode_parts(data, contexts, 3) == symbols).all()
    with pytest.raises(CodecError):
        parts.decode_parts(damage(data), contexts, 3)


@pytest.mark.parametrize(
    "config",
    [
        {"id": "lattice", "rate": 2.0, "exact_below": 0},
        {"id": "error_bounded", "abs_bound": 1e-3, "exact_below": 0},
        {"id": "qsgd", "levels": 40, "exact_below": 0},
    ],
)
def test_frames_of_many_elements_decode(small, config):
    rng = np.random.default_rng(3)
    arrays = {"w": rng.normal(0, 0.1, (160, 110)).astype(np.float32)}
    codec = get_codec(config)
    frame, decoded, _ = codec.encode_decoded(arrays)
    found, _ = codec.decode(frame, CodecState(Layout.of(arrays)))
    assert (found["w"] == decoded["w"]).all()
    ((_, theirs),) = plain_codecs.decode(frame)[0]
    assert theirs == found["w"].tobytes()


def test_more_elements_than_a_frame_holds_are_refused_with_the_limit(monkeypatch):
    assert vector.MOST_ELEMENTS == 2**31 - 1
    monkeypatch.setattr(vector, "MOST_ELEMENTS", 99)
    arrays = {"w": np.ones(100, np.float32)}
    for config in (
        {"id": "lattice", "rate": 1.0, "exact_below": 0},
        {"id": "topk", "density": 0.1, "exact_below": 0},
        {"id": "error_bounded", "abs_bound": 1e-3, "exact_below": 0},
    ):
        with pytest.raises(CodecError, match="at most 99 of them"):
            get_codec(config).encode(arrays)
    with pytest.raises(CodecError, match="at most 99 of them"):
        publish_model(arrays, None, -3)
    get_codec({"id": "dense"}).encode(arrays)
