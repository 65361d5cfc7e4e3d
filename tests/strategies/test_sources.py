"""Strategies and the mod take the date, tokens and ids from what they are given."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import CompressionMod
from flwr_caesar.strategies import (
    CompressedStrategy,
    FedComLoc,
    TopK,
    Uncompressed,
)
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.protocol import device_id
from flwr_caesar.sync.sources import Sources

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid


class Seeded:
    """Counts what was taken."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.taken = 0

    @property
    def sources(self) -> Sources:
        return Sources(now=lambda: 1_000, token_bytes=self._take)

    def _take(self, count: int) -> bytes:
        self.taken += 1
        return self._random.randbytes(count)


def run(strategy: CompressedStrategy, mod: CompressionMod) -> None:
    grid = LocalGrid(numpy_app(mods=[mod]), 2)
    strategy.start(grid, initial_model(), num_rounds=1)


@pytest.mark.parametrize("make", [TopK, Uncompressed])
def test_a_history_is_named_by_what_was_passed_in(make, tmp_path: Path) -> None:
    names = []
    for folder in ("a", "b"):
        server, path = Seeded(1), tmp_path / folder
        run(
            make(FedAvg(), checkpoint=path, sources=server.sources),
            CompressionMod(sources=Seeded(2).sources),
        )
        assert server.taken
        with SqliteLedger(path) as ledger:
            names.append(ledger.head())
    assert names[0] == names[1]
    assert names[0].incarnation == 1_000


def test_a_device_is_named_by_what_was_passed_in(tmp_path: Path) -> None:
    strategy = TopK(FedAvg(), checkpoint=tmp_path)
    run(strategy, CompressionMod(sources=Seeded(2).sources))
    token = Seeded(2).sources.new_token()
    with SqliteLedger(tmp_path) as ledger:
        assert set(ledger.devices([device_id(token)]))


def test_a_control_epoch_is_named_by_what_was_passed_in() -> None:
    epochs = {
        FedComLoc(FedAvg(), lr=0.1, sources=Seeded(3).sources).method.epoch
        for _ in range(2)
    }
    assert len(epochs) == 1
    assert len(str(*epochs)) == 19
