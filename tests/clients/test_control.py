"""Control variates sum to zero over all devices, whatever is sent and by whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.clients.control import next_control
from flwr_caesar.codec import get_codec

DEVICES = 7
CODECS = [
    {"id": "dense"},
    {"id": "topk", "density": 0.3, "exact_below": 0},
    {"id": "qsgd", "levels": 16, "norm": "l2", "exact_below": 0},
]


def rounds(config, seed, *, use_decoded):
    """Return the sum of all control variates, relative to their sizes, each round."""
    rng = np.random.default_rng(seed)
    codec = get_codec(config)
    controls = [{} for _ in range(DEVICES)]
    found = []
    for _ in range(5):
        sampled = rng.choice(DEVICES, 3, replace=False)
        models = [{"w": rng.normal(size=(5, 8)).astype(np.float32)} for _ in sampled]
        sent = [codec.decode(codec.encode(model)[0])[0] for model in models]
        mean = {"w": np.mean([model["w"] for model in sent], axis=0)}
        for device, own, theirs in zip(sampled, models, sent, strict=True):
            told = theirs if use_decoded else own
            controls[device] = next_control(controls[device], mean, told, lr=0.1, p=0.2)
        all_h = [h["w"] for h in controls if h]
        found.append(np.abs(np.sum(all_h, axis=0)).max() / np.abs(all_h).max())
    return found


@pytest.mark.parametrize("config", CODECS, ids=lambda config: config["id"])
@given(seed=st.integers(0, 2**32))
def test_the_sum_stays_zero_under_partial_participation(config, seed):
    assert max(rounds(config, seed, use_decoded=True)) < 1e-5


@pytest.mark.parametrize("config", CODECS[1:], ids=lambda config: config["id"])
def test_the_sum_drifts_with_what_was_not_sent(config):
    assert min(rounds(config, 0, use_decoded=False)) > 1e-2


def test_by_hand():
    h = next_control(
        {"w": np.array([1, 2], np.float32)},
        {"w": np.array([3.0, 3.0]), "n": np.array(4)},
        {"w": np.array([1, 4], np.float32), "n": np.array(2)},
        lr=0.5,
        p=0.25,
    )
    assert h.keys() == {"w"}
    assert h["w"].dtype == np.float32
    assert h["w"].tolist() == [2, 1.5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.0}, "lr"),
        ({"p": 0.0}, "p must"),
        ({"p": 1.5}, "p must"),
        ({"mean": {}}, "'w'"),
        ({"control": {"w": np.zeros(3, np.float32)}}, "'w'"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    w = np.zeros(2, np.float32)
    given_ = {"control": {}, "mean": {"w": w}, "sent": {"w": w}, "lr": 0.1, "p": 0.5}
    with pytest.raises(ValueError, match=words):
        next_control(**{**given_, **change})


def test_pieces_are_what_a_whole_tensor_is() -> None:
    rng = np.random.default_rng(5)
    shape = (3, 50_001)
    control, mean, sent = (
        {"w": rng.normal(size=shape).astype(np.float32)} for _ in range(3)
    )
    moved = np.subtract(mean["w"], sent["w"], dtype=np.float64)
    expected = (control["w"] + (0.1 / 0.3) * moved).astype(np.float32)
    found = next_control(control, mean, sent, lr=0.3, p=0.1)["w"]
    assert found.tobytes() == expected.tobytes()
    assert found.shape == shape
