"""A model on the disk: in which files its blocks are, whole and as changes.

The first is a safetensors file of the model. A round writes what changed, and a part of
the blocks whole, in turn, so that no round has to write all of them again and no block
is ever more than some changes away from the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.frozen import frozen

from .blocks import MODEL, TURNS, BlockFile, Image, blocks_file, cut, due
from .change import apply_change, apply_changes, differ, pack_changes
from .errors import DamagedStateError
from .files import (
    StoredFile,
    fresh_name,
    map_arrays,
    opened,
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
"""Of format 4, whose changes follow each other from a whole model on."""

MOST_FILES = 2 * TURNS
"""A model in more files than these is written whole."""

# Of a model; a larger change saves little.
_LARGEST = 0.6


@frozen
class StoredModel:
    """A model as it was written.

    Parameters
    ----------
    files : tuple of StoredFile
        Those that have blocks of it, the oldest first.
    starts : tuple of int
        In which of them each block is whole; those after it have its changes.
    size, checksum : int
        Of its bytes.
    chain : tuple of StoredFile
        How format 4 has it: changes of all of the first file.
    """

    files: tuple[StoredFile, ...]
    starts: tuple[int, ...]
    size: int
    checksum: int
    chain: tuple[StoredFile, ...] = ()

    @classmethod
    def of(cls, whole: StoredFile) -> StoredModel:
        """Return a model that is one file."""
        starts = (0,) * len(cut(whole.size))
        return cls((whole,), starts, whole.size, whole.checksum)

    @classmethod
    def from_json(cls, rows: dict[str, Any]) -> StoredModel:
        """Check and take the rows of a manifest.

        Raises
        ------
        DamagedStateError
            If they are not such.
        """
        match rows:
            case {
                "blocks": {
                    "files": [*files],
                    "starts": [*starts],
                    "size": int(size),
                    "checksum": int(sum_of),
                }
            } if len(files) <= MOST_FILES:
                stored = tuple(map(StoredFile.from_json, files))
                # Each block is whole somewhere.
                if (
                    0 <= size <= sum(file.size for file in stored)
                    and len(starts) == len(cut(size))
                    and all(type(at) is int for at in starts)
                    and all(0 <= at < len(stored) for at in starts)
                ):
                    return cls(stored, tuple(starts), size, sum_of)
            case {"model": row}:
                model = cls.of(StoredFile.from_json(row))
                match rows.get("changes", []), rows.get("checksum", model.checksum):
                    case [list(rows_of), int(sum_of)] if len(rows_of) <= MOST_CHANGES:
                        chain = tuple(map(StoredFile.from_json, rows_of))
                        return cls(model.files, model.starts, model.size, sum_of, chain)
        raise DamagedStateError("the manifest does not say where the model is")

    def to_json(self) -> dict[str, Any]:
        """Return rows of a manifest; of a whole model, as they were before blocks."""
        files = [file.to_json() for file in self.files]
        if self.is_whole:
            return {"model": files[0]}
        if self.chain:
            changes = [change.to_json() for change in self.chain]
            return {"model": files[0], "changes": changes, "checksum": self.checksum}
        return {
            "blocks": {
                "files": files,
                "starts": list(self.starts),
                "size": self.size,
                "checksum": self.checksum,
            }
        }

    @property
    def is_whole(self) -> bool:
        """Whether it is one file as a model that was never written before."""
        is_one = len(self.files) == 1 and not self.chain
        return is_one and self.files[0].name.startswith(MODEL)

    def holds(self, chunks: Collection[Chunk], sum_of: int) -> bool:
        """Whether bytes, whose checksum is `sum_of`, are the model's.

        A model has no checksum of its own inside, as an upload has (see
        `StoredFile.holds`), so one in 2^32 is taken for another. That shows in the
        digest of the next change, and the whole model is fetched; reading every model
        twice a round to compare it would cost more.
        """
        size = sum(memoryview(chunk).nbytes for chunk in chunks)
        return (size, sum_of) == (self.size, self.checksum)

    def all_files(self) -> tuple[StoredFile, ...]:
        """Return all that it consists of."""
        return (*self.files, *self.chain)


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
        From `read_model`, which nobody can have changed.

    Raises
    ------
    OSError
        If it cannot be written, or the one before cannot be read now.
    """
    size = sum(memoryview(chunk).nbytes for chunk in chunks)
    if (
        before is not None
        and size == before.size >= LEAST_BYTES
        and len(before.files) < MOST_FILES
        and not before.chain
    ):
        # What is damaged by now does not matter any more: all is written anew.
        with contextlib.suppress(DamagedStateError):
            if known is None:
                known = _bytes_of(folder, before)
            written = _write_changes(folder, Image(chunks), sum_of, before, known)
            if written is not None:
                return written
    whole = write_durably(folder / fresh_name(MODEL), chunks, sum_of)
    return StoredModel.of(whole)


def read_model(
    folder: Path, stored: StoredModel
) -> tuple[dict[str, Array], Array | None]:
    """Return the arrays of a model, and the bytes that these are views of.

    If it is one file they are read from there when they are used, see `map_arrays`,
    and there are no bytes. Else nobody can write to the arrays.

    Raises
    ------
    DamagedStateError
        If a file is not there, or what was read is not what was written.
    OSError
        If one cannot be read.
    """
    if stored.is_whole:
        return map_arrays(folder, stored.files[0]), None
    data = _bytes_of(folder, stored)
    data.flags.writeable = False
    return table_of(data).views(data), data


def _write_changes(
    folder: Path, new: Image, sum_of: int, before: StoredModel, old: Array
) -> StoredModel | None:
    """Write what changed; `None` if that is about as much as all of it."""
    places = cut(before.size)
    with _opened(folder, before) as files:
        changed = {
            block
            for block, (begin, end) in enumerate(places)
            if any(file.has(block) for file in files[before.starts[block] + 1 :])
            or differ(old[begin:end], new.part(begin, end))
        }
        spared = 0 if before.files[0].name.startswith(MODEL) else None
        renewed = due(before.starts, changed, spared)
        kept = [block for block in range(len(places)) if block not in renewed]
        pairs = ((old[b:e], new.part(b, e)) for b, e in map(places.__getitem__, kept))
        packed = pack_changes(pairs)
        whole = sum(end - begin for begin, end in map(places.__getitem__, renewed))
        room = int(_LARGEST * before.size)
        # Filled as it goes: blocks of their own and a file of them would be held twice.
        data, lengths, filled = np.empty(whole + room, np.uint8), [], 0
        for block, place in enumerate(places):
            if block in renewed:
                piece = new.part(*place)
            else:
                piece = np.frombuffer(next(packed), np.uint8)
                room -= piece.size
                if room < 0:
                    return None
            lengths.append(piece.size)
            data[filled : filled + piece.size] = piece
            filled += piece.size
        starts = [
            len(files) if block in renewed else at
            for block, at in enumerate(before.starts)
        ]
        needed = [
            index
            for index, file in enumerate(files)
            if any(
                at == index or (at < index and file.has(block))
                for block, at in enumerate(starts)
            )
        ]
    file = write_arrays(folder, "change", blocks_file(data[:filled], lengths))
    index_of = {old: new for new, old in enumerate([*needed, len(files)])}
    return StoredModel(
        (*(before.files[index] for index in needed), file),
        tuple(index_of[at] for at in starts),
        before.size,
        sum_of,
    )


def _bytes_of(folder: Path, stored: StoredModel) -> Array:
    """Return the bytes of a model's file, as if it had been written whole."""
    if stored.chain:
        data = read_bytes(folder, stored.files[0])
        for file in stored.chain:
            apply_change(data, read_arrays(folder, file))
    else:
        data = np.empty(stored.size, np.uint8)
        with _opened(folder, stored) as files:
            for block, (begin, end) in enumerate(cut(stored.size)):
                first = stored.starts[block]
                files[first].read_whole(block, data[begin:end])
                later = files[first + 1 :]
                apply_changes(data[begin:end], (file.change(block) for file in later))
    if checksum(pieces_of(data)) != stored.checksum:
        raise DamagedStateError("the model has the wrong checksum")
    return data


@contextlib.contextmanager
def _opened(folder: Path, stored: StoredModel) -> Iterator[list[BlockFile]]:
    with contextlib.ExitStack() as stack:
        yield [
            BlockFile.read(stack.enter_context(opened(folder, file)), file, stored.size)
            for file in stored.files
        ]
