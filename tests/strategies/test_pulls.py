"""A reply that is still being uploaded costs its own round, nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import RunNotRunningException

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import CompressedStrategy, FedComLoc, ServerMethod, TopK
from flwr_caesar.strategies.grid import StreamingGrid
from flwr_caesar.strategies.pulls import Pulls
from flwr_caesar.strategies.recorder import NOT_ANSWERED

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

HANGS = 30.0
SLOW = 2
CONFIG = ConfigRecord({"server-round": 1})


class UploadingGrid(LocalGrid):
    """Announces all replies at once, as a SuperLink; some uploads need a push.

    As with Flower's own Grid, an announced reply is pulled once, with all that were
    asked for in the same call, and the call returns when all of them are uploaded.
    """

    inline = False

    def __init__(self, num_nodes: int = 4, slow: Iterable[int] = (SLOW,)) -> None:
        super().__init__(numpy_app(mods=[compression_mod]), num_nodes)
        self.slow = set(slow)
        self.uploaded = threading.Event()
        self.failure: Exception | None = None

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [self._replies.pop(i) for i in message_ids if i in self._replies]
        if any(reply.metadata.src_node_id in self.slow for reply in ready):
            self.uploaded.wait(HANGS)
            if self.failure:
                raise self.failure
        return ready


@pytest.fixture
def grid() -> Iterator[UploadingGrid]:
    grid = UploadingGrid()
    yield grid
    grid.uploaded.set()


def inner() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0)


def requests(count: int) -> list[Message]:
    content = RecordDict({"arrays": initial_model(), "config": CONFIG})
    return [
        Message(content, dst_node_id=node, message_type="train")
        for node in range(1, count + 1)
    ]


@pytest.mark.parametrize("options", [{"deadline": 1.0}, {"quorum": 0.75}])
def test_a_round_closes_over_a_reply_in_transfer(grid, options) -> None:
    strategy = TopK(inner(), **options)
    result = strategy.start(grid, initial_model(), num_rounds=1)
    assert strategy.history[0].dropped == {SLOW: NOT_ANSWERED}
    assert not np.array_equal(
        result.arrays["weight"].numpy(), initial_model()["weight"].numpy()
    )


def test_the_timeout_of_a_call_holds(grid) -> None:
    strategy = TopK(inner())
    strategy.start(grid, initial_model(), num_rounds=1, timeout=1.0)
    assert strategy.history[0].dropped == {SLOW: NOT_ANSWERED}


def test_fedcomloc_moves_without_it(grid) -> None:
    strategy = FedComLoc(inner(), lr=0.1, deadline=1.0)
    strategy.start(grid, initial_model(), num_rounds=1)
    phases = {record.phase: record.dropped for record in strategy.history}
    assert phases == {"train": {SLOW: NOT_ANSWERED}, "settle": {}}


def test_others_come_first_and_it_comes_when_it_is_uploaded(grid) -> None:
    came = []
    for arrival in StreamingGrid(grid).send_and_receive(requests(4)):
        came.append(arrival.node_id)
        if len(came) == 3:
            grid.uploaded.set()
    assert sorted(came[:3]) == [1, 3, 4]
    assert came[3] == SLOW


def test_a_late_reply_never_reaches_the_next_round(grid) -> None:
    strategy = TopK(inner(), deadline=1.0)
    after = strategy.method.after

    def learn_then_upload(phase, present):
        grid.uploaded.set()
        return after(phase, present)

    strategy.method.after = learn_then_upload
    strategy.start(grid, initial_model(), num_rounds=2)
    first, second = strategy.history
    assert first.dropped == {SLOW: NOT_ANSWERED}
    assert second.dropped == {}
    assert sorted(device.node_id for device in second.devices) == [1, 2, 3, 4]


def test_what_a_late_device_sent_stays_on_it(grid) -> None:
    """All that four devices computed in three rounds is applied by the third."""

    def step(arrays, node, server_round):
        return {k: np.asarray(v + np.ones_like(v)) for k, v in arrays.items()}

    grid.app = numpy_app(mods=[compression_mod], step=step)
    strategy = CompressedStrategy(
        inner(), ServerMethod(error_feedback=True), deadline=1.0
    )
    after = strategy.method.after

    def learn_then_upload(phase, present):
        grid.uploaded.set()
        return after(phase, present)

    strategy.method.after = learn_then_upload
    result = strategy.start(grid, initial_model(), num_rounds=3)
    assert [bool(record.dropped) for record in strategy.history] == [True, False, False]
    moved = result.arrays["bias"].numpy() - initial_model()["bias"].numpy()
    late = 20 / (10 + 20 + 30 + 40)  # weights of numpy_app
    np.testing.assert_allclose(moved, 3 + late, rtol=1e-5)


def test_a_pull_that_fails_costs_its_own_reply(grid) -> None:
    grid.failure = OSError("connection lost")
    grid.uploaded.set()
    strategy = TopK(inner())
    strategy.start(grid, initial_model(), num_rounds=1)
    assert set(strategy.history[0].dropped) == {SLOW}
    assert "connection lost" in strategy.history[0].dropped[SLOW]


def test_a_run_that_was_stopped_stops(grid) -> None:
    grid.failure = RunNotRunningException()
    grid.uploaded.set()
    with pytest.raises(RunNotRunningException):
        TopK(inner()).start(grid, initial_model(), num_rounds=1)


def test_replies_in_transfer_are_bounded_by_their_bytes(monkeypatch) -> None:
    monkeypatch.setattr("flwr_caesar.strategies.pulls._PATIENCE", 0.0)
    grid = UploadingGrid(num_nodes=8, slow=range(1, 9))
    for nbytes, most in ((64 << 20, 4), (10 << 20, 6)):
        pulls = Pulls(grid)
        ids = list(grid.push_messages(requests(8)))
        monkeypatch.setattr(
            "flwr_caesar.strategies.pulls._BYTES_PER_SECOND", nbytes * 50
        )
        assert list(pulls.sweep(ids, nbytes=nbytes)) == [None] * most
        assert pulls.under_way == set(ids[:most])
        assert list(pulls.sweep(ids, nbytes=nbytes)) == []
    grid.uploaded.set()


def test_replies_are_taken_for_as_large_as_those_before(grid, monkeypatch) -> None:
    grid.uploaded.set()
    sizes, sweep = [], Pulls.sweep

    def noted(pulls, message_ids, *, nbytes):
        sizes.append(nbytes)
        return sweep(pulls, message_ids, nbytes=nbytes)

    monkeypatch.setattr(Pulls, "sweep", noted)
    strategy = TopK(inner())
    strategy.start(grid, initial_model(), num_rounds=2)
    first, second = strategy.history
    records = 600  # bytes of the records beside the arrays, at the most
    down = max(device.bytes_down for device in first.devices)
    up = max(device.bytes_up for device in first.devices)
    assert down - records < sizes[0] < down
    assert up - records < sizes[-1] <= up
    assert second.dropped == {}


def test_nothing_is_left_running(grid) -> None:
    before = set(threading.enumerate())
    TopK(inner(), deadline=1.0).start(grid, initial_model(), num_rounds=1)
    (left,) = set(threading.enumerate()) - before
    assert left.daemon
    grid.uploaded.set()
    left.join(HANGS)
    assert not left.is_alive()


def test_an_inline_grid_is_pulled_in_the_callers_thread_and_in_order() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    pull, calls = grid.pull_messages, []

    def pull_messages(message_ids):
        calls.append((threading.current_thread(), list(message_ids)))
        return pull(message_ids)

    grid.pull_messages = pull_messages
    TopK(inner()).start(grid, initial_model(), num_rounds=1)
    assert calls == [(threading.current_thread(), ["1", "2", "3", "4"])]
