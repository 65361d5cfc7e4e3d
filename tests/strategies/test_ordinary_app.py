"""One line on each side of an ordinary torch app, and nothing else in it changes."""

from __future__ import annotations

import random

import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import TopK

from .local_grid import LocalGrid
from .torch_app import client_app, serve


def test_an_ordinary_torch_app_gets_compression_by_one_line_on_each_side() -> None:
    random.seed(0)
    plain = serve(LocalGrid(client_app(), 4))

    strategy = TopK(FedAvg(), density=0.1)
    grid = LocalGrid(client_app(mods=[compression_mod]), 4)
    compressed = serve(grid, strategy)

    assert plain > 0.9
    assert compressed == pytest.approx(plain, abs=0.02)
    assert not any(record.dropped for record in strategy.history)
    trained = [r for r in strategy.history if r.phase == "train"]
    ratios = [d.compression_ratio for r in trained for d in r.devices]
    assert min(ratios) > 6
