"""The files of a device's state: which there are, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.frozen import frozen

from .errors import DamagedStateError
from .files import (
    StoredFile,
    fresh_name,
    map_arrays,
    read_small,
    write_durably,
)
from .model_file import StoredModel, read_model
from .packing import (
    FORMAT,
    MAX_MANIFEST_BYTES,
    PLAIN_FORMAT,
    SHORT_FORMAT,
    restore,
    unseal,
)
from .state import DeviceState
from .tensors import checksum, to_chunks

MANIFEST = "state.json"
_MODEL = "model/"


@frozen
class StateFiles:
    """The files of a state.

    The memory is all of it but the model, and but the residual if that is large: it
    changes when an update is made, the rest also when one is settled.
    """

    model: StoredModel
    memory: StoredFile | None = None
    residual: StoredFile | None = None

    def names(self) -> list[str]:
        """Return the names of all of them."""
        files = (*self.model.all_files(), self.memory, self.residual)
        return [file.name for file in files if file]

    def to_json(self) -> dict[str, Any]:
        """Return the rows of a manifest."""
        kinds = {"memory": self.memory, "residual": self.residual}
        rows = {kind: file.to_json() for kind, file in kinds.items() if file}
        return {**self.model.to_json(), **rows}

    @property
    def format(self) -> int:
        """Return the oldest format of manifests that can say so."""
        if not (self.model.is_whole or self.model.chain):
            return FORMAT
        return SHORT_FORMAT if self.model.chain or self.residual else PLAIN_FORMAT


def read_state(folder: Path) -> tuple[DeviceState, StateFiles, Array | None] | None:
    """Return a state, its files, and the model's bytes if these are in memory.

    `None` if the folder has no manifest.

    Raises
    ------
    DamagedStateError
        If a file is not there, or what was read is not what was written.
    OSError
        If one cannot be read.
    """
    try:
        sealed = read_small(folder / MANIFEST, most=MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        return None
    manifest = unseal(sealed)
    try:
        rows = manifest["files"]
        model = StoredModel.from_json(rows)
        memory = StoredFile.from_json(rows["memory"])
        residual = (
            StoredFile.from_json(rows["residual"]) if "residual" in rows else None
        )
    except (KeyError, TypeError) as err:
        raise DamagedStateError(f"the manifest lacks {err}") from err
    arrays, known = read_model(folder, model)
    kept = map_arrays(folder, memory)
    if residual is not None:
        kept |= map_arrays(folder, residual)
    state = restore(manifest, unnamed(arrays), kept)
    return state, StateFiles(model, memory, residual), known


def write_part(
    folder: Path, kind: str, arrays: Arrays, before: StoredFile | None
) -> StoredFile:
    """Write arrays durably if the file before is not of them."""
    chunks = to_chunks(arrays)
    sum_of = checksum(chunks)
    if before is not None and before.holds(folder, chunks, sum_of):
        return before
    return write_durably(folder / fresh_name(kind), chunks, sum_of)


def named(model: Arrays) -> Arrays:
    """Return a model's arrays as its file has them."""
    return {_MODEL + name: array for name, array in model.items()}


def unnamed(arrays: Arrays) -> Arrays:
    """Return the arrays of a model's file as the model has them."""
    return {name.removeprefix(_MODEL): array for name, array in arrays.items()}


def unchanging(arrays: Arrays) -> Arrays:
    """Return views that cannot be written to."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
