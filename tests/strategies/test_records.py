"""What a round records is what was on the wire."""

from __future__ import annotations

import random

import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod, stopwatch
from flwr_caesar.strategies import TopK, Uncompressed
from flwr_caesar.transport import message_nbytes

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


def of_training(messages):
    return [content for kind, content in messages if kind == "train"]


@pytest.mark.parametrize("make", [TopK, Uncompressed])
def test_bytes_are_those_of_the_messages(make) -> None:
    random.seed(0)
    records = []
    strategy = make(FedAvg(), on_record=records.append)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy.start(grid, initial_model(), num_rounds=2)
    assert [(r.server_round, r.phase) for r in records] == [
        (1, "train"),
        (1, "evaluate"),
        (2, "train"),
        (2, "evaluate"),
    ]
    assert records == strategy.history
    trained = [r for r in records if r.phase == "train"]
    assert sum(r.bytes_down for r in trained) == sum(
        message_nbytes(content) for content in of_training(grid.sent)
    )
    assert sum(r.bytes_up for r in trained) == sum(
        message_nbytes(content) for content in of_training(grid.received)
    )


def test_a_device_is_described_whole() -> None:
    strategy = TopK(FedAvg(fraction_evaluate=0.0), density=0.05)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy.start(grid, initial_model(), num_rounds=1)
    (record,) = strategy.history
    assert {d.node_id for d in record.devices} == {1, 2, 3, 4}
    for device in record.devices:
        row = device.to_row()
        assert row["examples"] == 10 * device.node_id
        assert row["compression_ratio"] > 10
        assert row["dropped"] == ""
        assert row["bytes_down"] > 12_000 > 1_500 > row["bytes_up"] > 0
        assert row["seconds_round_trip"] >= row["seconds_train"] > 0
        assert row["seconds_encode"] > 0
        assert row["seconds_decode"] > 0
        assert row["seconds_server"] > 0


def test_a_process_tells_once_how_long_it_took_to_start(monkeypatch) -> None:
    monkeypatch.setattr(stopwatch, "_STARTUP", stopwatch._Startup())
    strategy = TopK(FedAvg(fraction_evaluate=0.0))
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    strategy.start(grid, initial_model(), num_rounds=2)
    first, second = (
        sorted(device.seconds_start for device in record.devices)
        for record in strategy.history
    )
    assert first[0] == 0 < first[1]
    assert second == [0, 0]


def test_one_frame_is_one_array_shared_by_all_devices() -> None:
    strategy = TopK(FedAvg())
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy.start(grid, initial_model(), num_rounds=1)
    downloads = [content["arrays"] for content in of_training(grid.sent)]
    uploads = [content["arrays"] for content in of_training(grid.received)]
    assert all(list(record) == ["frame"] for record in downloads + uploads)
    assert len({id(record) for record in downloads}) == 1
