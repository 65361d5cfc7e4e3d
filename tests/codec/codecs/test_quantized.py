"""`quantized`: the kept elements at the bits that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.codecs.quantized import QuantizedCodec
from flwr_caesar.codec.conformance.mutate import Parts, seal


def test_the_codec_spends_its_bits() -> None:
    rng = np.random.default_rng(0)
    model = {
        "large": rng.normal(0, 1, (200, 200)).astype(np.float32),
        "small": rng.normal(0, 0.01, (200, 200)).astype(np.float32),
    }
    codec = QuantizedCodec(bits=5)
    frame, _ = codec.encode(model)
    assert 8 * len(frame) / 80_000 < 5.1
    decoded, _ = codec.decode(frame)
    for name, array in model.items():
        assert np.abs(array - decoded[name]).max() < np.abs(array).max()


def test_only_the_kept_are_sent() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 300)).astype(np.float32)
    codec = QuantizedCodec(density=0.01)
    frame, _ = codec.encode({"x": x})
    assert np.count_nonzero(codec.decode(frame)[0]["x"]) <= 3000
    assert 8 * len(frame) / x.size < 0.17


@pytest.mark.filterwarnings("error")
def test_a_scale_that_overflows_is_refused_quietly() -> None:
    codec = QuantizedCodec(exact_below=0)
    frame, _ = codec.encode({"x": np.linspace(-1, 1, 9, dtype=np.float32)})
    parts = Parts.of(frame)
    for entry in parts.entries:
        if entry[0] == b"SCL\0":
            entry[4] = np.array([3e38], "<f4").tobytes()
    with pytest.raises(CodecError, match="infinity"):
        codec.decode(seal(parts.join()))
