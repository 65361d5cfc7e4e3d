"""A state's digest names exactly the memory that both sides share."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
from hypothesis import given

from flwr_caesar.codec import CodecState, Layout
from flwr_caesar.codec.contract.state import NO_DIGEST

from ..strategies import Array, models

LAYOUT = Layout.of({"a": np.zeros(3, np.float32)})


@given(models(max_size=3))
def test_a_state_without_memory_has_no_digest(model: dict[str, Array]) -> None:
    assert CodecState(Layout.of(model), private=model).digest == NO_DIGEST


def test_the_digest_is_crc32_then_adler32() -> None:
    memory: dict[str, Array] = {
        "b": np.array([1.5], np.float32),
        "a": np.array([[2]], np.int16),
    }
    stream = (
        struct.pack("<I", 3) + LAYOUT.digest + b"a" + b"\2\0" + b"b" + b"\0\0\xc0\x3f"
    )
    expected = struct.pack("<II", zlib.crc32(stream), zlib.adler32(stream))
    assert CodecState(LAYOUT, 3, memory).digest == expected


def test_the_digest_sees_values_names_version_and_layout_only() -> None:
    memory = {"m": np.arange(12, dtype=np.float32).reshape(3, 4)}
    state = CodecState(LAYOUT, 1, memory)
    assert replace(state, private={"e": np.ones(2)}).digest == state.digest
    fortran = {"m": np.asfortranarray(memory["m"])}
    assert replace(state, arrays=fortran).digest == state.digest
    other = Layout.of({"b": np.zeros(3, np.float32)})
    changed = [
        replace(state, version=2),
        replace(state, layout=other),
        replace(state, arrays={"n": memory["m"]}),
        replace(state, arrays={"m": np.nextafter(memory["m"], np.float32(9))}),
    ]
    assert len({state.digest, *(s.digest for s in changed)}) == 5
