"""What a device does whose updates the server finds too long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flwr_caesar.codec import CodecError, get_codec
from flwr_caesar.codec.contract.update import length
from flwr_caesar.sync.device import commit_update, receive
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.packing import describe, pack_memory, restore
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import DeviceState

from .parties import CODEC, Device, Server, law_holds, new_id, new_token

ALL = get_codec({"id": "topk", "density": 1.0, "exact_below": 1})


class Trainer(Device):
    """A device whose next update is set, and which may keep no residual."""

    delta = np.ones(8)
    codec = CODEC
    error_feedback = True

    def take(self, header, frame, *, train=True):
        header = DownloadHeader.from_bytes(header.to_bytes())
        got = receive(self.state, header, frame, train=train, new_token=new_token)
        self.last = got
        lost = sum(got.forfeited.values(), np.zeros(8))
        done = commit_update(
            got.state,
            header,
            {"w": self.delta.copy()},
            codec=self.codec,
            new_id=new_id,
            error_feedback=self.error_feedback,
        )
        self.state = done.state
        self.computed = self.computed + self.delta - lost
        return done.reply, done.frame


def train(server: Server, device: Trainer, *, longest: float = 0.0, lose: bool = False):
    """Run a round in which the server says what it believes, and may hear nothing."""
    ((node, (header, frame)),) = server.ask([device]).items()
    reply = device.take(replace(header, longest=longest), frame)
    if not lose:
        assert server.hear(node, *reply).counts
    sent = length({"w": server.sums[node]}) if not lose else 0.0
    server.close()
    return sent


def holds(server: Server, device: Trainer) -> bool:
    """Whether the law holds: exactly, or but for float32 where that is dropped."""
    if device.error_feedback:
        return law_holds(server, device)
    kept = server.model["w"] + device.residual
    return np.allclose(kept, device.computed, rtol=1e-6, atol=1e4 * (kept > 1e9).any())


@pytest.fixture(params=[True, False], ids=["feedback", "none"])
def pair(request) -> tuple[Server, Trainer]:
    server, device = Server(), Trainer(1)
    device.error_feedback = request.param
    device.codec = CODEC if request.param else ALL
    train(server, device)
    return server, device


def test_one_training_that_was_too_long_is_given_up(pair) -> None:
    server, device = pair
    device.delta = np.full(8, 1e10)
    train(server, device, lose=True)
    device.delta = np.ones(8)
    sent = train(server, device, longest=20.0)
    assert sent <= 10
    assert device.last.forfeited["w"].max() >= 1e10 / 2
    assert "given up" in device.last.notes[-1]
    assert holds(server, device)
    assert np.abs(device.residual).max() < 10
    assert device.state.longest == 0


def test_it_is_given_up_later_too_if_nobody_was_told_at_once(pair) -> None:
    server, device = pair
    device.delta = np.full(8, 1e10)
    train(server, device, lose=True)
    device.delta = np.ones(8)
    train(server, device, lose=True)
    assert device.state.longest >= 1e9
    train(server, device, lose=True)
    sent = train(server, device, longest=20.0)
    assert sent <= 10
    assert np.abs(device.residual).max() < 10


def test_many_ordinary_trainings_are_sent_in_parts_and_nothing_is_lost(pair) -> None:
    server, device = pair
    train(server, device)
    for _ in range(40):
        train(server, device, lose=True)
    device.delta = np.zeros(8)
    lengths = []
    while not lengths or lengths[-1] > 0.1:
        lengths.append(train(server, device, longest=20.0))
        assert not device.last.forfeited
        assert holds(server, device)
        assert len(lengths) < 80
    assert max(lengths) <= 10
    assert len(lengths) > 5
    np.testing.assert_allclose(server.model["w"] + device.residual, 42, rtol=1e-6)


def test_a_training_that_is_too_long_now_is_not_made_shorter(pair) -> None:
    """What the server refuses because of one training stays refused."""
    server, device = pair
    device.delta = np.full(8, 1e6)
    assert train(server, device, longest=20.0) > 1e6


def test_an_upload_that_counts_ends_what_was_known_of_its_lengths(pair) -> None:
    server, device = pair
    device.delta = np.full(8, 100.0)
    train(server, device, lose=True)
    device.delta = np.ones(8)
    train(server, device)
    assert device.state.longest >= 99
    train(server, device, longest=20.0)
    assert not device.last.forfeited
    assert device.state.longest == 0
    assert holds(server, device)


def test_what_is_known_of_lengths_is_kept() -> None:
    server, device = Server(), Trainer(1)
    train(server, device)
    device.delta = np.full(8, 1e10)
    train(server, device, lose=True)
    train(server, device, lose=True)
    state = device.state
    assert 0 < state.pending[-1].share < 1
    kept = restore(describe(state), state.model, pack_memory(state))
    assert kept.longest == state.longest > 1e9
    assert [p.share for p in kept.pending] == [p.share for p in state.pending]
    # A state of an earlier release knows nothing of them, and gives nothing up.
    older = {k: v for k, v in describe(state).items() if k not in ("longest", "shares")}
    read = restore(older, state.model, pack_memory(state))
    assert (read.longest, [p.share for p in read.pending]) == (0.0, [0.0])
    for broken in ({"longest": -1.0}, {"shares": [1.0, 1.0]}, {"shares": ["1"]}):
        with pytest.raises(DamagedStateError):
            restore({**describe(state), **broken}, state.model, pack_memory(state))


def test_a_state_that_has_nothing_of_it_is_written_as_before() -> None:
    assert not {"longest", "shares"} & describe(DeviceState(bytes(16), 1)).keys()


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_a_length_that_is_none_is_refused(value) -> None:
    header = DownloadHeader(1, (1, 1), 1, (0, bytes(8)), longest=1.0)
    data = header.to_bytes()[:-4] + np.array(value, ">f4").tobytes()
    with pytest.raises(CodecError, match="length"):
        DownloadHeader.from_bytes(data)
