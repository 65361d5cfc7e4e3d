"""Counting traffic in an app: what sits inside sees models, a sink sees bytes."""

from __future__ import annotations

import random

from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.records import RoundRecord
from flwr_caesar.strategies import TopK
from flwr_caesar.transport import message_nbytes

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


class CommunicationTracker:
    """Adds up the arrays of messages, as FlowerTune's; `note` is for `on_record`."""

    def __init__(self) -> None:
        self.nbytes = 0

    def track(self, messages: list[Message]) -> None:
        for message in messages:
            records = message.content.array_records.values()
            self.nbytes += sum(record.count_bytes() for record in records)

    def note(self, record: RoundRecord) -> None:
        self.nbytes += record.bytes_down + record.bytes_up


class TrackedFedAvg(FedAvg):
    """Tracks as the strategy of FlowerTune's template does."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.tracker = CommunicationTracker()

    def configure_train(self, *args, **kwargs):
        messages = list(super().configure_train(*args, **kwargs))
        self.tracker.track(messages)
        return messages

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.tracker.track(replies)
        return super().aggregate_train(server_round, replies)


def test_a_tracker_inside_sees_models_and_one_on_record_sees_bytes() -> None:
    random.seed(0)
    inner, outside = TrackedFedAvg(), CommunicationTracker()
    strategy = TopK(inner, density=0.01, downlink="lattice", on_record=outside.note)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    model = initial_model()
    strategy.start(grid, model, num_rounds=3)
    crossed = [content for _, content in (*grid.sent, *grid.received)]
    assert outside.nbytes == sum(map(message_nbytes, crossed))
    assert inner.tracker.nbytes >= 3 * (4 + 1) * model.count_bytes()
    assert outside.nbytes < inner.tracker.nbytes / 4
