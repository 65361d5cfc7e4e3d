"""What a lossy codec is spared: small tensors, dtypes, order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from flwr_caesar.codec import (
    Array,
    CodecError,
    CodecState,
    FrameReader,
    LossyCodec,
    Section,
    TensorSpec,
    Vector,
    slices,
)

MODEL = {
    "bias": np.arange(3, dtype=np.float32),
    "w": np.arange(8, dtype=np.float32).reshape(2, 4),
    "half": np.arange(8, dtype=np.float16),
    "steps": np.arange(9, dtype=np.int64),
}


@dataclass(frozen=True)
class Rounds(LossyCodec):
    """Round to even numbers; the memory counts the frames."""

    exact_below: int = 4
    knows: bool = False

    id: ClassVar[str] = "rounds"

    def _encode_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array]]:
        assert [spec.name for spec in lossy] == ["w", "half"]
        assert [vector[part][-1] for part in slices(lossy)] == [7.0, 7.0]
        return [Section("VAL", self._rounded(vector).tobytes(), 4)], self._next(state)

    def _encode_decoded_vector(
        self, vector: Vector, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Sequence[Section], Mapping[str, Array], Vector | None]:
        sections, memory = self._encode_vector(vector, lossy, state)
        return sections, memory, self._rounded(vector) if self.knows else None

    def _decode_vector(
        self, reader: FrameReader, lossy: Sequence[TensorSpec], state: CodecState | None
    ) -> tuple[Vector, Mapping[str, Array]]:
        if self.knows and state is not None:
            pytest.fail("what is known is not decoded")
        size = 4 * sum(spec.size for spec in lossy)
        vector = np.frombuffer(reader.section("VAL", size=size), np.float32)
        return vector, self._next(state)

    @staticmethod
    def _rounded(vector: Vector) -> Vector:
        return (np.rint(vector / 2) * 2).astype(np.float32)

    @staticmethod
    def _next(state: CodecState | None) -> dict[str, Array]:
        seen = state.arrays["seen"] if state else np.zeros((), np.int64)
        return {"seen": np.asarray(seen + 1)}


def test_tensors_come_back_in_order_dtype_and_shape() -> None:
    decoded, _ = Rounds().decode(Rounds().encode(MODEL)[0])
    assert list(decoded) == list(MODEL)
    for name, array in decoded.items():
        assert (array.dtype, array.shape) == (MODEL[name].dtype, MODEL[name].shape)
    np.testing.assert_array_equal(decoded["bias"], MODEL["bias"])
    np.testing.assert_array_equal(decoded["steps"], MODEL["steps"])
    np.testing.assert_array_equal(decoded["half"], [0, 0, 2, 4, 4, 4, 6, 8])


def test_both_sides_remember_what_the_codec_says() -> None:
    first, sender = Rounds().encode(MODEL)
    second, sender = Rounds().encode(MODEL, sender)
    receiver = Rounds().decode(second, Rounds().decode(first)[1])[1]
    assert sender.digest == receiver.digest
    assert receiver.arrays["seen"] == 2


def test_a_codec_that_knows_the_outcome_does_not_decode() -> None:
    _, state = Rounds(knows=True).encode(MODEL)
    _, decoded, after = Rounds(knows=True).encode_decoded(MODEL, state)
    _, told, then = Rounds().encode_decoded(MODEL, Rounds().encode(MODEL)[1])
    assert (list(decoded), after.digest) == (list(told), then.digest)
    for name, array in decoded.items():
        assert array.dtype == told[name].dtype
        np.testing.assert_array_equal(array, told[name])


def test_without_large_tensors_the_codec_is_not_asked() -> None:
    small = {"bias": MODEL["bias"], "steps": MODEL["steps"]}
    frame, decoded, state = Rounds().encode_decoded(small)
    assert state.arrays == {}
    for found in (decoded, Rounds().decode(frame)[0]):
        assert list(found) == list(small)
        for name, array in found.items():
            np.testing.assert_array_equal(array, small[name])
            assert not np.shares_memory(array, small[name])


@pytest.mark.parametrize("value", [-1, 0.5])
def test_a_threshold_is_a_number_of_elements(value: int) -> None:
    with pytest.raises(CodecError, match="rounds: exact_below"):
        Rounds(exact_below=value)
