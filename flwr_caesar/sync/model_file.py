"""A model on the disk: a file, and what changed of it since."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr_caesar.codec.contract.layout import Array

from .change import apply_change, pack_change
from .errors import DamagedStateError
from .files import (
    StoredFile,
    fresh_name,
    map_arrays,
    pieces_of,
    read_arrays,
    read_bytes,
    table_of,
    write_arrays,
    write_durably,
)
from .tensors import Chunk, checksum

LEAST_BYTES = 1 << 20
"""A smaller model is written whole: it saves no wear to write less."""

MOST_CHANGES = 4
"""After so many the model is written whole, as each takes time whenever it is read."""

# Of a model; a larger change saves little.
_LARGEST = 0.6


@dataclass(frozen=True)
class StoredModel:
    """A model as it was written.

    Parameters
    ----------
    whole : StoredFile
        The last that was written whole.
    changes : tuple of StoredFile
        From there to this one.
    checksum : int
        Of this one's bytes, which are as many as the whole one's.
    """

    whole: StoredFile
    changes: tuple[StoredFile, ...] = ()
    checksum: int = 0

    @classmethod
    def from_json(cls, rows: dict[str, Any]) -> StoredModel:
        """Check and take the rows of a manifest.

        Raises
        ------
        DamagedStateError
            If they are not such.
        """
        whole = StoredFile.from_json(rows["model"])
        match rows.get("changes", []), rows.get("checksum", whole.checksum):
            case [list(changes), int(sum_of)] if len(changes) <= MOST_CHANGES:
                return cls(whole, tuple(map(StoredFile.from_json, changes)), sum_of)
        raise DamagedStateError("the manifest names no changes of a model")

    def to_json(self) -> dict[str, Any]:
        """Return rows of a manifest; without changes, as they were before these."""
        rows: dict[str, Any] = {"model": self.whole.to_json()}
        if self.changes:
            rows["changes"] = [change.to_json() for change in self.changes]
            rows["checksum"] = self.checksum
        return rows

    def holds(self, chunks: Collection[Chunk], sum_of: int) -> bool:
        """Whether bytes, whose checksum is `sum_of`, are the model's."""
        size = sum(memoryview(chunk).nbytes for chunk in chunks)
        return (size, sum_of) == (self.whole.size, self.checksum)

    def files(self) -> tuple[StoredFile, ...]:
        """Return all that it consists of."""
        return (self.whole, *self.changes)


def write_model(
    folder: Path,
    chunks: Collection[Chunk],
    sum_of: int,
    before: StoredModel | None,
    known: Array | None = None,
) -> StoredModel:
    """Write a model durably: what changed of the one before, or all of it.

    Parameters
    ----------
    folder : Path
        Where.
    chunks : collection of bytes
        Of its file, see `to_chunks`.
    sum_of : int
        Their checksum.
    before : StoredModel, optional
        What the folder has.
    known : ndarray of uint8, optional
        From `read_model`.

    Raises
    ------
    OSError
        If it cannot be written, or the one before cannot be read now.
    """
    size = sum(memoryview(chunk).nbytes for chunk in chunks)
    if (
        before is not None
        and size == before.whole.size >= LEAST_BYTES
        and len(before.changes) < MOST_CHANGES
    ):
        change = None
        # What is damaged by now does not matter any more: all is written anew.
        with contextlib.suppress(DamagedStateError):
            # Whoever was given its arrays may have changed them.
            if known is None or checksum(pieces_of(known)) != before.checksum:
                known = _bytes_of(folder, before)
            change = pack_change(known, chunks, most=int(_LARGEST * size))
        if change is not None:
            file = write_arrays(folder, "change", change)
            return StoredModel(before.whole, (*before.changes, file), sum_of)
    whole = write_durably(folder / fresh_name("model"), chunks, sum_of)
    return StoredModel(whole, (), sum_of)


def read_model(
    folder: Path, stored: StoredModel
) -> tuple[dict[str, Array], Array | None]:
    """Return the arrays of a model, and the bytes that these are views of.

    Without changes they are read from the file when they are used, see `map_arrays`,
    and there are no bytes.

    Raises
    ------
    DamagedStateError
        If a file is not there, or what was read is not what was written.
    OSError
        If one cannot be read.
    """
    if not stored.changes:
        return map_arrays(folder, stored.whole), None
    data = _bytes_of(folder, stored)
    return table_of(data).views(data), data


def _bytes_of(folder: Path, stored: StoredModel) -> Array:
    """Return the bytes of a model's file, as if it had been written whole."""
    data = read_bytes(folder, stored.whole)
    for file in stored.changes:
        apply_change(data, read_arrays(folder, file))
    if stored.changes and checksum(pieces_of(data)) != stored.checksum:
        raise DamagedStateError("the model has the wrong checksum")
    return data
