"""An app's updates in files that `codec bench` reads, of real messages."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.cli import main
from flwr_caesar.clients import CompressionMod
from flwr_caesar.codec_inputs import load_arrays
from flwr_caesar.strategies import MagnitudePruning, TopK

from ..strategies.apps import drift, initial_model, numpy_app
from ..strategies.local_grid import LocalGrid


def trained(folder: Path, make=TopK, rounds: int = 2):
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[CompressionMod(record=folder)]), 2)
    strategy = make(FedAvg(fraction_evaluate=0.0))
    start = initial_model()
    result = strategy.start(grid, start, num_rounds=rounds)
    return start, result.arrays


@pytest.mark.parametrize("make", [TopK, MagnitudePruning])
def test_each_round_of_each_device_has_a_file(tmp_path: Path, make) -> None:
    start, _ = trained(tmp_path / "updates", make)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.npz"))
    assert found == [
        f"updates/node-{node}/round-{number:04d}.npz"
        for node in (1, 2)
        for number in (1, 2)
    ]
    assert not list(tmp_path.rglob("*.partial"))
    # The update itself, not what of it was sent.
    before = {name: array.numpy() for name, array in start.items()}
    after = drift(before, 1, 1)
    told = load_arrays(tmp_path / found[0])
    assert told.keys() == before.keys()
    if make is TopK:
        learned = after["weight"] - before["weight"]
        np.testing.assert_array_equal(told["weight"], learned)
    assert told["steps"] == after["steps"]


def test_the_files_are_what_codec_bench_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path)
    files = [str(p) for p in sorted((tmp_path / "node-1").iterdir())]
    assert main(["codec", "bench", *files, "--as", "caesar"]) == 0
    assert "with error feedback" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    start, arrays = trained(place)
    assert not np.array_equal(start["weight"].numpy(), arrays["weight"].numpy())
