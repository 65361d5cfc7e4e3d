"""Devices of one process that are sent the same model decode it once."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.clients import method, shared_downloads
from flwr_caesar.clients.method import DeviceMethod
from flwr_caesar.clients.shared_downloads import SharedDownloads
from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published.lattice_model import (
    LatticeRules,
    ModelPoint,
    decode_model,
    encode_model,
)
from flwr_caesar.codec.published.publication import initial_point
from flwr_caesar.sync.state import DeviceState


def point(seed: int, size: int = 2000) -> ModelPoint:
    rng = np.random.default_rng(seed)
    arrays = {"w": rng.standard_normal(size).astype(np.float32), "n": np.array(3)}
    return initial_point(arrays, -10, LatticeRules())


def holding(model: ModelPoint) -> DeviceState:
    arrays = model.arrays()
    return DeviceState(b"t" * 16, 1, model=arrays, version=1, digest=model.digest)


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> SharedDownloads:
    found = SharedDownloads()
    monkeypatch.setattr(method, "_downloads", found)
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the frames that were decoded."""
    frames: list[bytes] = []

    def counted(frame, *given, **named):
        frames.append(frame)
        return decode_model(frame, *given, **named)

    monkeypatch.setattr(method, "decode_model", counted)
    return frames


def test_a_change_is_decoded_by_the_first_of_the_devices_that_hold_its_base(decoded):
    old, new = point(1), point(2)
    frame = encode_model(new, old)
    models = []
    for _ in range(3):
        state, came = holding(old), bytes(bytearray(frame))
        models.append(DeviceMethod().decode(state, came, state.model))
    assert len(decoded) == 1
    for model in models:
        np.testing.assert_array_equal(model["w"], new.arrays()["w"])
        assert model.digest == model_digest(model) == new.digest
    first, *others = (model.spared() for model in models)
    assert first == 0
    assert all(seconds > 0 for seconds in others)


def test_nobody_can_change_what_others_hold(decoded):
    frame = encode_model(point(1))
    for _ in range(2):
        model = DeviceMethod().decode(None, frame, None)
        for array in model.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_a_device_that_holds_another_model_is_not_given_one(decoded):
    old, new, other = point(1), point(2), point(3)
    frame = encode_model(new, old)
    DeviceMethod().decode(holding(old), frame, old.arrays())
    for _ in range(2):
        with pytest.raises(CodecError, match="does not hold"):
            DeviceMethod().decode(holding(other), frame, other.arrays())


def test_a_damaged_frame_is_refused_after_a_good_one(decoded):
    frame = encode_model(point(1))
    DeviceMethod().decode(None, frame, None)
    damaged = frame[:-1] + bytes([frame[-1] ^ 1])
    for _ in range(2):
        with pytest.raises(CodecError):
            DeviceMethod().decode(None, damaged, None)


def test_the_models_that_were_used_last_are_kept(decoded, monkeypatch):
    frames = [encode_model(point(seed)) for seed in range(3)]
    monkeypatch.setattr(shared_downloads, "MOST_BYTES", 2 * 8100)
    for i in (0, 1, 0, 2, 0, 1):
        DeviceMethod().decode(None, frames[i], None)
    assert [frames.index(frame) for frame in decoded] == [0, 1, 2, 1]


def test_a_larger_model_is_not_kept(decoded, monkeypatch):
    frame = encode_model(point(1))
    monkeypatch.setattr(shared_downloads, "MOST_BYTES", 8000)
    for _ in range(2):
        model = DeviceMethod().decode(None, frame, None)
        assert model["w"].flags.writeable
    assert len(decoded) == 2
