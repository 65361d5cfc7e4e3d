"""Whatever happens to the ledger's bytes, it is noticed, and costs what it must."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.sync import ledger_file, patience
from flwr_caesar.sync.aside import MOST_KEPT
from flwr_caesar.sync.errors import DamagedStateError, StateError
from flwr_caesar.sync.ledger import Checkpoint, SqliteLedger
from flwr_caesar.sync.ledger_api import DeviceRow, Head
from flwr_caesar.sync.ledger_file import DATABASE
from flwr_caesar.sync.ledger_tables import NOT_KNOWN
from flwr_caesar.sync.strategy_state import StrategyState

from .faults import logged
from .test_ledger import MAX, ROWS, checkpoint, head, image, reopened
from .test_ledger import _commit as commit_of

DEVICE = ROWS[1].device


@pytest.fixture
def warnings() -> Iterator[list[logging.LogRecord]]:
    with logged() as records:
        yield records


def said(warnings: list[logging.LogRecord]) -> str:
    return "\n".join(record.getMessage() for record in warnings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three rounds; in the third, device b's upload 77 is applied."""
    folder = tmp_path / "checkpoint"
    with SqliteLedger(folder) as ledger:
        for number in (1, 2):
            ledger.commit(*commit_of(number))
        now, rows, nodes, third = commit_of(3)
        rows[1] = replace(rows[1], applied=(*rows[1].applied, 77))
        ledger.commit(now, rows, nodes, third)
    return folder


def change(folder: Path, query: str) -> None:
    database = sqlite3.connect(folder / DATABASE)
    with database:
        database.execute(query)
    database.close()


def aside(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.damaged-*"))


def test_a_ledger_of_format_2_goes_on(
    tmp_path: Path, warnings: list[logging.LogRecord]
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "kept" / "ledger-2", folder)
    with SqliteLedger(tmp_path / "new") as ledger:
        ledger.commit(*commit_of(3))
        expected = image(ledger)
    assert reopened(folder) == expected
    assert "was of format 2" in said(warnings)
    warnings.clear()
    with SqliteLedger(folder) as ledger:
        ledger.commit(*commit_of(4))
        expected = image(ledger)
    assert reopened(folder) == expected
    assert not warnings


def test_a_ledger_killed_while_it_is_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "kept" / "ledger-2", folder)
    code = (
        "import os, sys; from flwr_caesar.sync import ledger_file\n"
        "from flwr_caesar.sync.ledger import SqliteLedger\n"
        "create = ledger_file._create\n"
        "def killed(database): create(database); os.kill(os.getpid(), 9)\n"
        "ledger_file._create = killed; SqliteLedger(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)])
    assert done.returncode == -9
    with SqliteLedger(folder) as ledger:
        assert ledger.head() == head(3)
        assert ledger.devices([DEVICE])[DEVICE].uploads == 3


TABLES = ["meta", "devices", "checkpoints", "newest"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("copy", ["", "_copy"])
@pytest.mark.parametrize("how", ["value", "key", "gone"])
def test_a_row_that_is_damaged_once_costs_nothing(
    folder: Path, table: str, copy: str, how: str, warnings: list[logging.LogRecord]
) -> None:
    expected = reopened(folder)
    query = {
        ("meta", "value"): "SET phase = phase + 4",
        ("devices", "value"): "SET applied = zeroblob(length(applied))",
        ("checkpoints", "value"): "SET round = round | 64",
        ("newest", "value"): "SET upload = zeroblob(8)",
        ("meta", "key"): "SET lineage = zeroblob(8)",
        ("devices", "key"): "SET device = 'x' || device",
        ("checkpoints", "key"): "SET number = number + 8",
        ("newest", "key"): "SET device = 'x' || device",
    }.get((table, how))
    name = table + copy
    change(folder, f"UPDATE {name} {query}" if query else f"DELETE FROM {name}")
    assert reopened(folder) == expected
    assert "damaged and is mended" in said(warnings)
    (kept,) = aside(folder)
    assert str(kept) in said(warnings)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    warnings.clear()
    assert reopened(folder) == expected
    assert not warnings


def test_of_two_copies_that_differ_the_newer_is_taken(folder: Path) -> None:
    """A write that the disk said it did, and did not."""
    expected = reopened(folder)
    for table in ("meta", "devices", "devices_copy", "meta_copy"):
        with sqlite3.connect(folder / DATABASE) as database:
            now = database.execute(f"SELECT * FROM {table}").fetchall()
        database.close()
        with SqliteLedger(folder) as ledger:
            older = [replace(row, last=(2**62, 1), uploads=1) for row in ROWS]
            ledger.commit(head(1), older)
        with sqlite3.connect(folder / DATABASE) as database:
            marks = ", ".join("?" * len(now[0]))
            database.executemany(f"REPLACE INTO {table} VALUES ({marks})", now)
        database.close()
        with SqliteLedger(folder) as ledger:
            part = ledger.head() if "meta" in table else ledger.devices([DEVICE])
        with SqliteLedger(folder) as ledger:
            third = commit_of(3)[1]
            third[1] = replace(third[1], applied=(*third[1].applied, 77))
            whole = {DEVICE: third[1]}
            assert part == (head(3) if "meta" in table else whole)
            ledger.commit(head(3), third)
        assert reopened(folder) == expected


def test_a_device_whose_row_is_lost_gives_up_and_nothing_is_applied_twice(
    folder: Path, warnings: list[logging.LogRecord]
) -> None:
    for copy in ("", "_copy"):
        change(folder, f"UPDATE devices{copy} SET uploads = 9 WHERE device LIKE 'bb%'")
    with SqliteLedger(folder) as ledger:
        rows = ledger.devices([row.device for row in ROWS])
    assert rows[ROWS[0].device].uploads == 3
    assert rows[DEVICE] == DeviceRow(DEVICE, applied=(NOT_KNOWN,))
    assert f"device {DEVICE} is damaged" in said(warnings)


def test_a_row_that_is_damaged_while_the_server_runs_is_read_from_its_copy(
    folder: Path, warnings: list[logging.LogRecord]
) -> None:
    with SqliteLedger(folder) as ledger:
        expected = image(ledger)
        change(folder, "UPDATE devices SET applied = zeroblob(16)")
        change(folder, "UPDATE meta SET phase = 8")
        assert ledger.devices([DEVICE])[DEVICE].applied == (1, MAX, 77)
        assert ledger.head() == head(3)
        change(folder, "UPDATE devices_copy SET applied = zeroblob(16)")
        assert ledger.devices([DEVICE])[DEVICE].applied == (NOT_KNOWN,)
        assert f"device {DEVICE} is damaged" in said(warnings)
        change(folder, "UPDATE nodes SET device = 'aa'")
        assert ledger.at_nodes([0, MAX]) == {}
        assert "2 nodes" in said(warnings)
    assert expected != reopened(folder)


def test_a_head_that_is_lost_is_said(folder: Path) -> None:
    for copy in ("", "_copy"):
        change(folder, f"UPDATE meta{copy} SET phase = 1")
    with pytest.raises(DamagedStateError, match="backup"):
        SqliteLedger(folder)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, folder: Path) -> None:
    """Each is mended or said: what is read was written, or is known to be lost."""
    expected = reopened(folder)
    whole = (folder / DATABASE).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"the same": 0, "refused": 0, "lost": 0}
    for position in rng.integers(0, 8 * len(whole), 400):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        trial = tmp_path / "trial"
        shutil.copytree(folder, trial)
        (trial / DATABASE).write_bytes(data)
        with logged() as warnings:
            try:
                found = reopened(trial)
            except StateError:
                outcomes["refused"] += 1
            else:
                outcomes["the same" if found == expected else "lost"] += 1
                assert found == expected or said(warnings)
        shutil.rmtree(trial)
    assert outcomes["lost"] <= 4  # only nodes are kept once
    assert outcomes["refused"] < 40  # the first page


@pytest.mark.parametrize("kind", ["model", "strategy", "wrapper"])
@pytest.mark.parametrize("damage", [b"", None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    folder: Path,
    kind: str,
    damage: bytes | None,
    warnings: list[logging.LogRecord],
) -> None:
    path = max(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with SqliteLedger(folder) as ledger:
        kept = ledger.checkpoint()
        assert kept
        assert kept.round == 2
        now = ledger.head()
        rows = ledger.devices([row.device for row in ROWS])
    assert now == replace(head(3), version=head(2).version)
    assert rows[DEVICE] == replace(ROWS[1], uploads=2)
    assert rows[ROWS[0].device].uploads == 3
    (moved,) = aside(folder)
    assert moved.name in said(warnings)
    assert path.name in said(warnings)
    assert len(list(moved.iterdir())) == (2 if damage is None else 3)
    warnings.clear()
    with SqliteLedger(folder) as ledger:
        ledger.commit(*commit_of(3))
        expected = image(ledger)
    assert reopened(folder) == expected
    assert not warnings


def test_a_checkpoint_whose_row_is_lost_gives_way_too(
    folder: Path, warnings: list[logging.LogRecord]
) -> None:
    for copy in ("", "_copy"):
        change(folder, f"UPDATE checkpoints{copy} SET round = 9 WHERE round = 3")
    with SqliteLedger(folder) as ledger:
        kept = ledger.checkpoint()
        assert kept
        assert kept.round == 2
        assert ledger.devices([DEVICE])[DEVICE].applied == ROWS[1].applied
    for copy in ("", "_copy"):
        change(folder, f"UPDATE checkpoints{copy} SET round = 9")
    with pytest.raises(DamagedStateError, match="lost its checkpoints"):
        SqliteLedger(folder)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_is_no_reason_to_go_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    expected = reopened(folder)
    real = os.open

    def fail(path: Any, *rest: Any, **options: Any) -> int:
        if str(path).endswith(".safetensors"):
            raise OSError(code, os.strerror(code), path)
        return real(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(StateError, match="cannot be used now") as caught:
            SqliteLedger(folder)
        assert not isinstance(caught.value, DamagedStateError)
    assert reopened(folder) == expected
    assert not aside(folder)


def test_damage_does_not_pile_up(folder: Path) -> None:
    for _ in range(4):
        change(folder, "UPDATE meta SET phase = phase + 1")
        reopened(folder)
    assert len(aside(folder)) == MOST_KEPT


def state(value: float, digest: str) -> StrategyState:
    return StrategyState({"digest": digest}, {"x": np.full(3, value)})


def test_what_uploads_build_on_is_kept_and_written_once(
    folder: Path, warnings: list[logging.LogRecord]
) -> None:
    model = {"w": np.ones(3)}
    with SqliteLedger(folder) as ledger:
        first = {"a": state(1, "1"), "b": state(2, "2")}
        ledger.commit(head(4), checkpoint=Checkpoint(4, model, uploads=first))
        files = set(folder.glob("upload-*"))
        second = {"b": state(2, "2"), "c": state(3, "3")}
        ledger.commit(head(5), checkpoint=Checkpoint(5, model, uploads=second))
        assert len(files) == 2
        assert len(set(folder.glob("upload-*")) - files) == 1
        kept = ledger.checkpoint()
        assert kept
        assert kept.uploads["b"].tree == {"digest": "2"}
        np.testing.assert_array_equal(kept.uploads["c"].arrays["x"], np.full(3, 3.0))
        ledger.commit(head(6), checkpoint=Checkpoint(6, model, uploads=second))
        assert len(list(folder.glob("upload-*"))) == 2
    for path in folder.glob("upload-*"):
        path.write_bytes(b"x")
    with SqliteLedger(folder) as ledger:
        kept = ledger.checkpoint()
        assert kept
        assert kept.round == 6
        assert kept.uploads == {}
    assert "device b build on is lost" in said(warnings)


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
input()
"""


@pytest.fixture
def backup(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that locks the database until it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / DATABASE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_of_another_process_is_waited_for_and_named(
    folder: Path,
    backup: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[logging.LogRecord],
) -> None:
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.05)
    named = threading.Event()
    real = patience.log

    def hear(*args: Any) -> None:
        real(*args)
        named.set()

    monkeypatch.setattr(patience, "log", hear)
    with SqliteLedger(folder) as ledger:
        commit = threading.Thread(target=ledger.commit, args=commit_of(4))
        commit.start()
        assert named.wait(60)
        assert ledger.head() == head(3)
        assert backup.stdin
        backup.stdin.write("\n")
        backup.stdin.flush()
        commit.join(60)
        assert ledger.head() == head(4)
    (message,) = (record.getMessage() for record in warnings)
    assert f"Another process ({backup.pid}, " in message


def test_a_lock_is_not_waited_for_without_end(
    folder: Path, backup: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(patience, "MOST_SECONDS", 0.1)
    with SqliteLedger(folder) as ledger:
        with pytest.raises(StateError, match=rf"another process \({backup.pid}, "):
            ledger.commit(*commit_of(4))
        assert ledger.head() == head(3)


@pytest.mark.parametrize("mode", [0o702, 0o720, 0o777])
def test_a_folder_that_others_may_write_is_closed_to_them(
    folder: Path, mode: int, warnings: list[logging.LogRecord]
) -> None:
    folder.chmod(mode)
    reopened(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "Other users could change" in said(warnings)


def test_a_folder_that_others_may_read_is_the_users_business(folder: Path) -> None:
    folder.chmod(0o755)
    reopened(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_shared_folder_with_other_things_is_refused(folder: Path) -> None:
    (folder / "letters").mkdir()
    folder.chmod(0o777)
    with pytest.raises(StateError, match="chmod 700"):
        SqliteLedger(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    folder.chmod(0o755)
    reopened(folder)


def test_another_users_folder_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to user"):
        SqliteLedger(folder)


@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal", "model"])
def test_links_are_not_followed(tmp_path: Path, folder: Path, name: str) -> None:
    for number, path in enumerate([*folder.glob(f"{name}*")] or [folder / name]):
        elsewhere = tmp_path / f"elsewhere-{number}"
        if path.exists():
            path.rename(elsewhere)
        path.symlink_to(elsewhere)
    with pytest.raises(StateError, match="link"):
        SqliteLedger(folder)


def test_a_head_of_a_ledger_without_a_checkpoint(tmp_path: Path) -> None:
    with SqliteLedger(tmp_path) as ledger:
        ledger.commit(Head(MAX, 1, 2, (0, bytes(8))), ROWS)
    change(tmp_path, "DELETE FROM devices")
    with SqliteLedger(tmp_path) as ledger:
        assert ledger.checkpoint() is None
        assert ledger.devices([DEVICE])[DEVICE] == ROWS[1]
        ledger.commit(head(1), checkpoint=checkpoint(1))
