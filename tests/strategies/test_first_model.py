"""The model that rounds begin with is let go, and nobody who keeps it loses it."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import Caesar
from flwr_caesar.strategies.resumed import FirstModel
from flwr_caesar.transport import arrays_to_record, record_to_arrays

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


class Keeping(FedAvg):
    """Keeps the models that it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[ArrayRecord] = []

    def configure_train(self, server_round, arrays, config, grid):
        self.kept.append(arrays)
        return super().configure_train(server_round, arrays, config, grid)


def test_the_lent_record_is_emptied_and_no_other() -> None:
    record = arrays_to_record({"w": np.ones(3, np.float32)})
    first = FirstModel()
    lent = first.lend(record)
    shown = first.shown(lent)
    first.replaced(by=None)
    assert list(lent) == ["w"]
    first.replaced(by=record)
    assert not len(lent)
    for each in (record, shown, first.shown(record)):
        assert each["w"].data == record["w"].data
    assert first.shown(record) is record


def test_who_keeps_the_first_model_keeps_its_arrays() -> None:
    model = initial_model()
    data = [array.data for array in model.values()]
    inner, evaluated = Keeping(), list[ArrayRecord]()
    strategy = Caesar(inner)
    result = strategy.start(
        LocalGrid(numpy_app(mods=[compression_mod]), 3),
        model,
        num_rounds=2,
        evaluate_fn=lambda _, arrays: evaluated.append(arrays),
    )
    assert [array.data for array in model.values()] == data
    assert len(inner.kept) == 2
    assert len(evaluated) == 3
    begun = record_to_arrays(inner.kept[0])
    for name, array in record_to_arrays(evaluated[0]).items():
        np.testing.assert_array_equal(array, begun[name])
    assert list(result.arrays) == list(model)


def test_a_run_in_which_nobody_replies_returns_the_first_model() -> None:
    def lost(reply, node):
        return None

    model = initial_model()
    strategy = Caesar(FedAvg(), deadline=0.01)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2, tamper=lost)
    result = strategy.start(grid, model, num_rounds=1)
    assert list(result.arrays) == list(model)
