"""The contract every codec inherits: framing, tables, states and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from flwr_caesar.codec import (
    Codec,
    CodecError,
    CodecState,
    Layout,
    StateMismatchError,
    inspect_frame,
)
from flwr_caesar.codec.codecs.dense import DenseCodec
from flwr_caesar.codec.codecs.topk import TopKCodec
from flwr_caesar.codec.contract.exact import pack_exact, unpack_exact
from flwr_caesar.codec.contract.frame import FrameReader, Section, write_frame
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.codec.contract.state import NO_DIGEST

from ..strategies import Array, arrays, bits, dtypes, gaussian_model, models

CODECS: list[Codec] = [DenseCodec(), TopKCodec(density=0.1, exact_below=8)]


@dataclass(frozen=True)
class Delta(Codec):
    """Sends the bytes that changed since the last frame: the smallest memory."""

    id: ClassVar[str] = "test-delta"

    def _encode(
        self, arrays: Arrays, layout: Layout, state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        now = b"".join(s.data for s in pack_exact(arrays, layout.tensors))
        memory = np.frombuffer(now, np.uint8)
        last = state.arrays["last"] if state else np.zeros_like(memory)
        return [Section("XOR", (memory ^ last).tobytes(), 1)], {"last": memory}

    def _decode(
        self, reader: FrameReader, layout: Layout, state: CodecState | None
    ) -> tuple[dict[str, Array], Mapping[str, Array]]:
        change = reader.section("XOR", size=layout.nbytes)
        memory = np.frombuffer(change, np.uint8)
        if state:
            memory = memory ^ state.arrays["last"]
        sections = []
        offset = 0
        for size in (1, 2, 4, 8):
            total = sum(s.nbytes for s in layout.tensors if s.itemsize == size)
            part = memory[offset : offset + total].tobytes()
            sections.append(Section(f"X{size}", part))
            offset += total
        inner = write_frame(config=self.config, layout_digest=b"", sections=sections)
        arrays = unpack_exact(FrameReader(inner), layout.tensors)
        return {s.name: arrays[s.name] for s in layout.tensors}, {"last": memory}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@given(model=models(arrays(dtypes.filter(lambda name: name != "float64"))))
def test_encoding_and_decoding_are_pure(codec: Codec, model: dict[str, Array]) -> None:
    before = {name: bits(array) for name, array in model.items()}
    frame, state = codec.encode(model)
    assert codec.encode(model) == (frame, state)
    decoded, _ = codec.decode(frame)
    for array in decoded.values():
        array[...] = 0
    again, _ = codec.decode(frame)
    assert list(again) == list(model)
    assert {name: bits(array) for name, array in model.items()} == before
    for name, array in again.items():
        assert (array.dtype.name, array.shape) == before[name][:2]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("size", [3, 3000])
def test_what_is_not_finite_is_refused_by_name(
    codec: Codec, value: float, dtype: type, size: int
) -> None:
    bad: Array = np.zeros(size, dtype)
    bad[size // 2] = value
    with pytest.raises(CodecError, match="'culprit' holds NaN or infinity"):
        codec.encode({"fine": np.ones(2000, np.float32), "culprit": bad})


def test_a_decoded_nan_is_refused_by_name() -> None:
    layout = Layout.of({"a": np.zeros(1, np.float32)})
    frame = write_frame(
        config=DenseCodec().config,
        layout_digest=layout.digest,
        sections=[Section("X4", b"\0\0\xc0\x7f")],
    )
    with pytest.raises(CodecError, match="'a' holds NaN"):
        DenseCodec().decode(frame, CodecState(layout))


@pytest.mark.parametrize(
    "other",
    [DenseCodec(), TopKCodec(density=0.2), TopKCodec(density=0.1, values="float16")],
    ids=repr,
)
def test_frames_of_another_codec_or_configuration_are_refused(other: Codec) -> None:
    frame, _ = other.encode(gaussian_model())
    with pytest.raises(CodecError, match=r"frame of codec .* expected"):
        TopKCodec(density=0.1).decode(frame)


def test_numbers_in_a_configuration_are_compared_by_value() -> None:
    frame, _ = TopKCodec(density=1).encode(gaussian_model())
    TopKCodec(density=1.0).decode(frame)
    config = {"id": "topk", "density": True, "values": "float32", "exact_below": 1024}
    forged = write_frame(config=config, layout_digest=bytes(16), sections=[])
    with pytest.raises(CodecError, match="expected"):
        TopKCodec(density=1.0).decode(forged)


def test_a_long_configuration_does_not_fill_the_log() -> None:
    config = {"id": "x" * 60_000}
    frame = write_frame(config=config, layout_digest=bytes(16), sections=[])
    with pytest.raises(CodecError) as caught:
        DenseCodec().decode(frame)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_a_frame_without_table_needs_its_layout(codec: Codec) -> None:
    model = gaussian_model()
    _, state = codec.encode(model)
    frame, _ = codec.encode(model, state)
    assert "TABL" not in inspect_frame(frame).sections
    codec.decode(frame, CodecState(Layout.of(model)))
    for wrong in (None, CodecState(Layout.of({"a": np.zeros(1)}))):
        with pytest.raises(StateMismatchError, match="tensor table"):
            codec.decode(frame, wrong)


def test_a_table_of_other_shapes_is_refused_but_other_dtypes_are_not() -> None:
    model = {"a": np.ones((2, 3), np.float32)}
    frame, _ = DenseCodec().encode(model)
    for shape, name in [((3, 2), "a"), ((6,), "a"), ((2, 3), "b"), ((2, 3), "long")]:
        expected = CodecState(Layout.of({name: np.zeros(shape, np.float32)}))
        with pytest.raises(CodecError, match="expected"):
            DenseCodec().decode(frame, expected)
    expected = CodecState(Layout.of({"a": np.zeros((2, 3), np.float64)}))
    decoded, state = DenseCodec().decode(frame, expected)
    assert decoded["a"].dtype == np.float32
    assert state.layout == Layout.of(model)


def test_a_table_is_believed_up_to_a_number_of_bytes() -> None:
    frame, _ = DenseCodec().encode({"a": np.zeros(1000, np.float32)})
    DenseCodec().decode(frame, max_bytes=4000)
    with pytest.raises(CodecError, match="claims 4000 bytes"):
        DenseCodec().decode(frame, max_bytes=3999)


def test_a_table_must_match_its_digest() -> None:
    layout = Layout.of({"a": np.zeros(1, np.float32)})
    frame = write_frame(
        config=DenseCodec().config,
        layout_digest=bytes(16),
        sections=[Section("TABL", layout.to_bytes()), Section("X4", bytes(4))],
    )
    with pytest.raises(CodecError, match="differs from its digest"):
        DenseCodec().decode(frame)


def test_a_changed_layout_starts_anew() -> None:
    codec = Delta()
    _, state = codec.encode({"a": np.ones(3, np.float32)})
    frame, state = codec.encode({"a": np.ones(3, np.float64)}, state)
    info = inspect_frame(frame)
    assert (info.state_version, info.state_digest) == (0, NO_DIGEST)
    assert state.version == 1
    np.testing.assert_array_equal(codec.decode(frame)[0]["a"], 1)


def test_both_sides_advance_in_step_and_notice_when_not() -> None:
    codec = Delta()
    sender: CodecState | None = None
    receiver: CodecState | None = None
    past: list[tuple[bytes, CodecState | None]] = []
    for seed in range(4):
        model = gaussian_model(seed)
        frame, sender = codec.encode(model, sender)
        past.append((frame, receiver))
        decoded, receiver = codec.decode(frame, receiver)
        assert [bits(a) for a in decoded.values()] == [bits(a) for a in model.values()]
        assert receiver.version == sender.version == seed + 1
        assert receiver.digest == sender.digest != NO_DIGEST
    frame, before = past[2]
    assert before is not None
    fresh = CodecState(before.layout)
    tampered = {"last": before.arrays["last"] ^ np.uint8(1)}
    for wrong in (
        receiver,
        past[1][1],
        fresh,
        replace(before, version=9),
        replace(before, arrays=tampered),
    ):
        with pytest.raises(StateMismatchError, match="continues from codec state 2"):
            codec.decode(frame, wrong)
    with pytest.raises(StateMismatchError, match="tensor table"):
        codec.decode(frame)
    codec.decode(frame, before)


def test_a_stateless_codec_refuses_a_frame_that_claims_a_state() -> None:
    layout = Layout.of({"a": np.zeros(1, np.float32)})
    frame = write_frame(
        config=DenseCodec().config,
        layout_digest=layout.digest,
        sections=[Section("X4", bytes(4))],
        state_version=1,
        state_digest=b"12345678",
    )
    with pytest.raises(StateMismatchError):
        DenseCodec().decode(frame, CodecState(layout))
