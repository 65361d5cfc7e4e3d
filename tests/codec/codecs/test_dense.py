"""`dense` is bit-exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from flwr_caesar.codec import CodecState, Layout
from flwr_caesar.codec.codecs.dense import DenseCodec

from ..strategies import Array, bits, models


@given(models())
def test_every_bit_survives_in_layout_order(model: dict[str, Array]) -> None:
    frame, _ = DenseCodec().encode(model)
    decoded, _ = DenseCodec().decode(frame)
    assert list(decoded) == list(model)
    for name, array in decoded.items():
        assert bits(array) == bits(model[name])
        assert array.flags.writeable


@given(models())
def test_a_second_frame_needs_no_table(model: dict[str, Array]) -> None:
    first, state = DenseCodec().encode(model)
    second, _ = DenseCodec().encode(model, state)
    assert len(second) < len(first)
    decoded, _ = DenseCodec().decode(second, CodecState(Layout.of(model)))
    assert [bits(a) for a in decoded.values()] == [bits(a) for a in model.values()]


def test_weights_compress_to_about_27_bits() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, 200_000).astype(np.float32)
    frame, _ = DenseCodec().encode({"w": weights})
    assert 8 * len(frame) / weights.size < 28


@given(models())
def test_what_is_decoded_is_known_without_decoding(model: dict[str, Array]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenseCodec, "_decode", None)
        frame, told, _ = DenseCodec().encode_decoded(model, finite=False)
    decoded, _ = DenseCodec().decode(frame, finite=False)
    assert list(told) == list(decoded)
    for name, array in told.items():
        assert array.dtype == decoded[name].dtype
        assert bits(array) == bits(decoded[name])
        assert array.flags.writeable
        assert not np.shares_memory(array, model[name])
