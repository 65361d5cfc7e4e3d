"""Whatever happens to a device's folder or to the server's, within two rounds the
device works on the right model again; and what it answers is durable first."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import CompressedStrategy, TopK
from flwr_caesar.sync.folder import MANIFEST
from flwr_caesar.sync.packing import FORMAT, seal
from tests.sync.faults import logged

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid

VICTIM = 2


class Federation:
    """Devices with folders, and a server with a checkpoint, that can be stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint"
        self.models: dict[int, dict[str, np.ndarray]] = {}
        self.seen: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self.dropped: dict[int, dict[int, str]] = {}

    def device(self, node: int) -> Path:
        return self.folder / f"device-{node}"

    def lineage(self, node: int) -> Path:
        (found,) = (path for path in self.device(node).iterdir() if path.is_dir())
        return found

    def run(self, last_round: int, nodes: tuple[int, ...] = (1, 2)) -> None:
        """Go on to a round with these nodes."""

        def step(arrays, node, server_round):
            self.seen[node, server_round] = arrays
            return drift(arrays, node, server_round)

        def evaluate(done: int, arrays: ArrayRecord) -> MetricRecord | None:
            self.models[done] = {k: v.numpy() for k, v in arrays.items()}
            return None

        grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), max(nodes))
        for node in list(grid.contexts):
            grid.contexts[node].node_config["state-dir"] = str(self.device(node))
            if node not in nodes:
                del grid.contexts[node]
        inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        strategy = TopK(inner, density=0.1, checkpoint=self.checkpoint)
        strategy.start(
            grid, initial_model(), num_rounds=last_round, evaluate_fn=evaluate
        )
        for record in strategy.history:
            self.dropped[record.server_round] = record.dropped


def deleted(them: Federation) -> None:
    shutil.rmtree(them.device(VICTIM))


def copied(them: Federation) -> None:
    shutil.rmtree(them.device(VICTIM))
    shutil.copytree(them.device(1), them.device(VICTIM))


def torn(them: Federation) -> None:
    for path in them.lineage(VICTIM).glob("memory-*"):
        path.write_bytes(path.read_bytes()[:-1])


def foreign(them: Federation) -> None:
    (them.lineage(VICTIM) / MANIFEST).write_text("{}")


def newer(them: Federation) -> None:
    (them.lineage(VICTIM) / MANIFEST).write_bytes(seal({"format": FORMAT + 1}))


def absent_for_long(them: Federation) -> None:
    them.run(20, nodes=(1,))


def joined_late(them: Federation) -> None:
    shutil.rmtree(them.folder)
    them.run(6, nodes=(1,))


def set_back(them: Federation) -> None:
    """An old backup, written over the files so that the folder is the same."""
    backup = them.folder / "backup"
    folder = them.lineage(VICTIM)
    shutil.copytree(folder, backup)
    them.run(8)
    for path in folder.iterdir():
        path.unlink()
    shutil.copytree(backup, folder, dirs_exist_ok=True)


def server_set_back(them: Federation) -> None:
    backup = them.folder / "backup"
    shutil.copytree(them.checkpoint, backup)
    them.run(8)
    shutil.rmtree(them.checkpoint)
    backup.rename(them.checkpoint)


LOGGED = {
    copied: "another copy of this device",
    torn: "torn",
    foreign: "wrong checksum",
    newer: f"format {FORMAT + 1}",
    set_back: "given up",
    server_set_back: "went back to an earlier state",
}


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    with logged() as records:
        yield records


@pytest.mark.parametrize(
    "event",
    [
        deleted,
        copied,
        torn,
        foreign,
        newer,
        absent_for_long,
        joined_late,
        set_back,
        server_set_back,
    ],
)
def test_within_two_rounds_the_model_is_right_again(
    event: Callable[[Federation], None], tmp_path: Path, log: list[logging.LogRecord]
) -> None:
    them = Federation(tmp_path / "all")
    them.run(4)
    event(them)
    log.clear()
    before = len(them.dropped) if event is not server_set_back else 4
    them.seen.clear()
    them.run(before + 3)
    assert LOGGED.get(event, "") in "\n".join(entry.getMessage() for entry in log)
    assert them.dropped[before + 1].keys() <= {VICTIM}
    for later in (before + 2, before + 3):
        assert them.dropped[later] == {}
        for node in (1, VICTIM):
            for name in ("weight", "bias", "half"):
                np.testing.assert_array_equal(
                    them.seen[node, later][name], them.models[later - 1][name]
                )


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_kept_is_found_before_the_app_works_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.open
    trained: list[int] = []

    def step(arrays, node, server_round):
        trained.append(server_round)
        return drift(arrays, node, server_round)

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), path)
        return real(path, flags, *rest, **options)

    def next_fails(reply, node):
        monkeypatch.setattr(os, "open", refuse if len(trained) == 1 else real)
        if reply.has_error():
            monkeypatch.setattr(os, "open", real)
        return reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), 1, tamper=next_fails)
    grid.contexts[1].node_config["state-dir"] = str(tmp_path)
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = TopK(inner, density=0.1)
    strategy.start(grid, initial_model(), num_rounds=3)
    first, second, third = (record.dropped for record in strategy.history)
    assert (first, third) == ({}, {})
    assert os.strerror(code) in second[1]
    assert trained == [1, 3]


def test_on_a_disk_that_cannot_be_written_nothing_is_sent_and_nothing_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def step(arrays, node, server_round):
        if server_round == 2:
            monkeypatch.setattr(os, "open", refuse)
        return drift(arrays, node, server_round)

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **options)

    def mend(reply, node):
        monkeypatch.setattr(os, "open", real)
        return reply

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), 1, tamper=mend)
    grid.contexts[1].node_config["state-dir"] = str(tmp_path)
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = CompressedStrategy(inner)
    strategy.start(grid, initial_model(), num_rounds=3)
    first, second, third = (record.dropped for record in strategy.history)
    assert (first, third) == ({}, {})
    assert "make the folder writable" in second[1]
