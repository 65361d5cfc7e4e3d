from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from flwr_caesar.codec import Layout
from flwr_caesar.sync.files import map_arrays, read_arrays, write_arrays
from flwr_caesar.sync.mapped import ReadInTurn, let_go
from flwr_caesar.sync.residual import add_residual
from flwr_caesar.sync.short import Short, ShortResidual

from .faults import every_dtype


def resident(array: np.ndarray) -> int:
    """Return bytes of a mapping that are in memory, as the kernel tells."""
    address, inside, total = array.ctypes.data, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, _, end = first.partition("-")
            inside = int(start, 16) <= address < int(end, 16)
        elif inside and first == "Rss:":
            total += 1024 * int(line.split()[1])
    return total


def test_arrays_take_memory_only_while_they_are_used(tmp_path: Path) -> None:
    arrays = {name: np.full(1 << 20, n, np.float32) for n, name in enumerate("abc")}
    stored = write_arrays(tmp_path, "model", arrays)
    mapped = map_arrays(tmp_path, stored)
    assert resident(mapped["b"]) < 1 << 20
    assert mapped["b"].sum() == 1 << 20
    assert resident(mapped["b"]) >= 4 << 20
    mapped["c"][:] = 7
    let_go([mapped["b"]])
    assert resident(mapped["b"]) < 6 << 20  # the other's are still there
    assert (mapped["c"] == 7).all()
    assert (mapped["b"] == 1).all()
    os.unlink(tmp_path / stored.name)
    let_go(mapped.values())
    assert (mapped["b"] == 1).all()


def test_others_are_not_touched() -> None:
    array = np.arange(1 << 20)
    array.flags.writeable = False
    let_go([array, array[::2], np.ones(()), np.zeros(0)])
    assert array[-1] == (1 << 20) - 1


def test_mapped_arrays_are_those_that_are_read(tmp_path: Path) -> None:
    stored = write_arrays(tmp_path, "model", every_dtype(1))
    mapped, read = map_arrays(tmp_path, stored), read_arrays(tmp_path, stored)
    let_go(mapped.values())
    assert list(mapped) == list(read)
    for name, array in read.items():
        assert mapped[name].dtype == array.dtype
        assert mapped[name].shape == array.shape
        assert mapped[name].tobytes() == array.tobytes()
        assert mapped[name].flags.aligned


def test_a_residual_takes_no_memory_once_it_is_added(tmp_path: Path) -> None:
    stored = write_arrays(tmp_path, "residual", {"t": np.full(1 << 21, 3, np.float16)})
    kept = map_arrays(tmp_path, stored)["t"]
    residual = ShortResidual({"t": Short(kept, 1)})
    update = {"t": np.ones(1 << 21, np.float32)}
    total = add_residual(update, residual, Layout.of(update), overwrite=True)
    assert total["t"] is update["t"]
    assert (total["t"] == 7).all()
    assert resident(kept) < 1 << 20  # of 4 MB
    assert (residual["t"] == 6).all()


def test_arrays_read_in_turn_are_let_go_of(tmp_path: Path) -> None:
    arrays = {f"{n}": np.full(1 << 18, n, np.float32) for n in range(8)}
    mapped = map_arrays(tmp_path, write_arrays(tmp_path, "model", arrays))
    in_turn = ReadInTurn(mapped)
    assert list(in_turn) == list(mapped)
    assert len(in_turn) == 8
    for n, (_, array) in enumerate(in_turn.items()):
        assert (array == n).all()
    assert resident(mapped["0"]) < 6 << 20  # of 8, as the last four are still there
    assert all((in_turn[f"{n}"] == n).all() for n in reversed(range(8)))
