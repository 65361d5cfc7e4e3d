"""What a device learned, round by round, in files for ``flwr-caesar codec bench``."""

from __future__ import annotations

import itertools
import os
import tempfile
import zipfile
from logging import WARNING
from pathlib import Path

import numpy as np
from flwr.app import Context, RecordDict

from flwr_caesar.codec import difference
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.flower import configs_in, log


def record_update(
    folder: str | os.PathLike[str],
    context: Context,
    request: RecordDict,
    arrays: Arrays,
    before: Arrays,
) -> None:
    """Write an update as ``FOLDER/node-ID/round-N.npz``.

    A folder that cannot be written is told in the log: training goes on.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    context : Context
        Of the node.
    request : RecordDict
        The message's content, which says the round.
    arrays : mapping of str to ndarray
        The model after training.
    before : mapping of str to ndarray
        The model before training.
    """
    own = Path(folder) / f"node-{context.node_id}"
    try:
        own.mkdir(parents=True, exist_ok=True)
        _write(own / f"round-{_round_of(request, own):04d}.npz", arrays, before)
    except OSError as error:
        log(WARNING, "flwr-caesar: the update is not recorded: %s", error)


def _round_of(request: RecordDict, folder: Path) -> int:
    """Return the number of a round, or the next one that has no file."""
    for record in configs_in(request).values():
        number = record.get("server-round")
        if isinstance(number, int) and number >= 0:
            return number
    free = (
        n for n in itertools.count(1) if not (folder / f"round-{n:04d}.npz").exists()
    )
    return next(free)


def _write(path: Path, arrays: Arrays, before: Arrays) -> None:
    # Not numpy.savez, which takes names as keyword arguments: "file" may be one.
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                value = difference({name: array}, {name: before[name]})[name]
                if value.dtype.name == "bfloat16":
                    value = value.astype(
                        np.float32
                    )  # a file of NumPy's has no bfloat16
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
