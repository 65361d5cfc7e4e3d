"""A checkpoint and its files: the newest, and the one before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.flower import log
from flwr_caesar.frozen import frozen

from .checked import Row
from .errors import DamagedStateError
from .files import StoredFile, read_arrays, write_arrays
from .strategy_state import StrategyState

_STATES = ("strategy", "wrapper")


@frozen
class Checkpoint:
    """What a resumed run goes on from; the head names the version.

    Parameters
    ----------
    round : int
        The last that was aggregated; 0 for the initial model.
    model : mapping of str to ndarray
        The global model after it.
    strategy : StrategyState, optional
        State of the inner strategy.
    wrapper : StrategyState, optional
        State of ours around it.
    uploads : mapping of str to StrategyState
        What upload codecs remember of devices, by device; what is not there any more
        costs the device an upload without prediction.
    """

    round: int
    model: Mapping[str, Array]
    strategy: StrategyState | None = None
    wrapper: StrategyState | None = None
    uploads: Mapping[str, StrategyState] = field(default_factory=dict)


@frozen
class StoredCheckpoint:
    """A checkpoint as its row in the ledger has it.

    Parameters
    ----------
    number : int
        Counts checkpoints.
    version : tuple of int and bytes
        Of the model in it.
    round : int
        See `Checkpoint`.
    model : StoredFile
        Its file.
    states : mapping of str to tuple
        Tree and file of the ``strategy`` and the ``wrapper``, where there are any.
    uploads : mapping of str to tuple
        Tree and file by device.
    """

    number: int
    version: tuple[int, bytes]
    round: int
    model: StoredFile
    states: Mapping[str, tuple[Any, StoredFile]] = field(default_factory=dict)
    uploads: Mapping[str, tuple[Any, StoredFile]] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Row) -> StoredCheckpoint:
        """Take a row of the ledger.

        Raises
        ------
        DamagedStateError
            If it does not name files of ours.
        """
        number, version, digest, done, model, *states, uploads = row
        try:
            found = {
                name: (json.loads(tree), StoredFile.from_json(json.loads(file)))
                for name, file, tree in zip(
                    _STATES, states[::2], states[1::2], strict=True
                )
                if file is not None and tree is not None
            }
            devices = {
                device: (tree, StoredFile.from_json(file))
                for device, (tree, file) in json.loads(uploads).items()
            }
            stored = StoredFile.from_json(json.loads(model))
        except (ValueError, TypeError, AttributeError, RecursionError) as err:
            raise DamagedStateError(f"a checkpoint is malformed: {err!r}") from err
        return cls(number, (version, digest), done, stored, found, devices)

    def to_row(self) -> Row:
        """Return the row of the ledger."""
        states: list[str | None] = []
        for name in _STATES:
            tree, file = self.states.get(name, (None, None))
            states += [
                None if file is None else json.dumps(file.to_json()),
                None if file is None else json.dumps(tree),
            ]
        uploads = {
            device: [tree, file.to_json()]
            for device, (tree, file) in self.uploads.items()
        }
        model = json.dumps(self.model.to_json())
        head = (self.number, *self.version, self.round, model)
        return (*head, *states, json.dumps(uploads))

    def files(self) -> list[StoredFile]:
        """Return all its files."""
        parts = (*self.states.values(), *self.uploads.values())
        return [self.model, *(file for _, file in parts)]


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    number: int,
    version: tuple[int, bytes],
    before: Iterable[StoredCheckpoint],
) -> StoredCheckpoint:
    """Write the files of a checkpoint, but uploads that an older one has already.

    Afterwards `sync_folder` is due, and then the row.
    """
    known = {
        (device, json.dumps(tree)): file
        for old in before
        for device, (tree, file) in old.uploads.items()
    }
    model = write_arrays(folder, "model", checkpoint.model)
    states = {}
    for name in _STATES:
        state: StrategyState | None = getattr(checkpoint, name)
        if state is not None:
            states[name] = state.tree, write_arrays(folder, name, state.arrays)
    uploads = {}
    for device, state in checkpoint.uploads.items():
        # The tree names the content by its digest.
        file = known.get((device, json.dumps(state.tree)))
        if file is None:
            file = write_arrays(folder, "upload", state.arrays)
        uploads[device] = state.tree, file
    return StoredCheckpoint(number, version, checkpoint.round, model, states, uploads)


def read_checkpoint(folder: Path, stored: StoredCheckpoint) -> Checkpoint:
    """Read a checkpoint; what is damaged of uploads is left out.

    Raises
    ------
    DamagedStateError
        If a file is not what was written.
    OSError
        If a file cannot be read.
    """
    states = {
        name: StrategyState(tree, read_arrays(folder, file))
        for name, (tree, file) in stored.states.items()
    }
    uploads = {}
    for device, (tree, file) in stored.uploads.items():
        try:
            uploads[device] = StrategyState(tree, read_arrays(folder, file))
        except DamagedStateError as err:
            log(WARNING, "What uploads of device %s build on is lost: %s", device, err)
    model = read_arrays(folder, stored.model)
    return Checkpoint(
        stored.round,
        model,
        states.get("strategy"),
        states.get("wrapper"),
        uploads,
    )
