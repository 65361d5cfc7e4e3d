"""A shared start is one model on both sides, of runs begun by older releases, too."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.clients import shared_start
from flwr_caesar.clients.shared_start import with_shared_start
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published.publication import PointHistory, initial_point
from flwr_caesar.strategies.lattice_downlink import LatticeDownlink
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.strategy_state import StrategyState

LINEAGE = 7


def initial():
    rng = np.random.default_rng(0)
    return {
        "embedding": (1e-5 * rng.normal(size=(300, 40))).astype(np.float32),
        "head": rng.normal(size=(40, 50)).astype(np.float32),
        "bias": np.zeros(50, np.float32),
    }


def held(downlink: LatticeDownlink):
    """Return the model that a new device makes for itself, if it is the server's."""
    header = DownloadHeader(
        lineage=LINEAGE,
        order=(0, 1),
        nonce=1,
        base=downlink.newcomer,
        target=downlink.version,
    )
    state = with_shared_start(
        None, header, initial(), downlink.recipe, lambda: bytes(16)
    )
    return None if state is None else state.model


@pytest.mark.parametrize("first_bits", [0, 6])
def test_a_new_device_makes_the_first_model_itself(first_bits):
    downlink = LatticeDownlink(shared_start=True, first_bits=first_bits)
    begun = downlink.begin(initial())
    downlink.publish(begun, 0)
    model = held(downlink)
    assert model is not None
    assert model_digest(model) == model_digest(begun)
    assert downlink.recipe["bits"] == first_bits
    for name in ("embedding", "head"):
        error = np.linalg.norm(model[name] - initial()[name])
        assert error < (0.6 if first_bits == 0 else 0.02) * np.linalg.norm(model[name])


@pytest.mark.parametrize("old", [False, True])
def test_a_restarted_server_tells_the_same_start(old):
    downlink = LatticeDownlink(shared_start=True)
    downlink.publish(downlink.begin(initial()), 0)
    state = downlink.state()
    if old:  # one first step for all tensors
        history = PointHistory.start(initial(), shared=True, exponent=-7)
        state = StrategyState({"lattice": [0, 0, -7]}, history.to_arrays())
    again = LatticeDownlink(shared_start=True)
    again.restore(state)
    assert again.recipe == {
        **({"exponent": -7} if old else {"bits": 6}),
        "exact_below": 0,
        "fine_below": 1024,
    }
    model = held(again)
    assert model is not None
    assert model_digest(model) == again.newcomer[1]


def test_a_start_that_is_not_understood_is_no_start():
    downlink = LatticeDownlink(shared_start=True)
    downlink.publish(downlink.begin(initial()), 0)
    header = DownloadHeader(LINEAGE, (0, 1), 1, downlink.version, downlink.newcomer)
    for start in ({}, {"exact_below": 0, "fine_below": 1024}, {"bits": "six"}):
        assert (
            with_shared_start(None, header, initial(), start, lambda: bytes(16)) is None
        )


@pytest.mark.parametrize("tree", [{}, {"first_step": 3}, {"first_step": {}}])
def test_a_damaged_start_is_refused(tree):
    downlink = LatticeDownlink()
    downlink.publish(downlink.begin(initial()), 0)
    state = downlink.state()
    with pytest.raises(DamagedStateError):
        LatticeDownlink().restore(
            StrategyState({"lattice": [0, 0], **tree}, state.arrays)
        )


def test_devices_of_one_process_make_the_first_model_once(monkeypatch):
    shared_start._made.clear()
    made = []
    monkeypatch.setattr(
        shared_start,
        "initial_point",
        lambda *given: made.append(given) or initial_point(*given),
    )
    for first_bits in (6, 6, 0, 0):
        downlink = LatticeDownlink(shared_start=True, first_bits=first_bits)
        downlink.publish(downlink.begin(initial()), 0)
        model = held(downlink)
        assert model_digest(model) == downlink.newcomer[1]
    assert len(made) == 2
    with pytest.raises(ValueError, match="read-only"):
        model["head"][0] = 1.0  # the next device's


def test_a_large_first_model_is_not_kept(monkeypatch):
    shared_start._made.clear()
    monkeypatch.setattr(shared_start, "_MOST_BYTES", 1000)
    downlink = LatticeDownlink(shared_start=True)
    downlink.publish(downlink.begin(initial()), 0)
    held(downlink)["head"][0] = 1.0
    assert not shared_start._made
