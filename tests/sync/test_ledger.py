from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.sync.errors import DamagedStateError, StateError
from flwr_caesar.sync.ledger import DATABASE, Checkpoint, SqliteLedger
from flwr_caesar.sync.ledger_api import DeviceRow, Head, LedgerStore
from flwr_caesar.sync.strategy_state import StrategyState

from .faults import Killed, every_dtype, failing_at

MAX = 2**64 - 1
ROWS = [
    DeviceRow("aa" * 16),
    DeviceRow(
        "bb" * 16, (7, b"12345678"), (1, MAX), (2**62, 1), (2**62, 9), 3, 4, 5, b"\0"
    ),
]


def head(number: int) -> Head:
    return Head(MAX, 2**62, number, (number, number.to_bytes(8, "big")))


def checkpoint(number: int) -> Checkpoint:
    rng = np.random.default_rng(number)
    moments: dict[str, Array] = {
        "0": rng.standard_normal(9),
        "1": np.ones((), np.float32),
    }
    state = StrategyState({"m_t": ["array", "0"], "eta": ["float", "0x1p-3"]}, moments)
    own = StrategyState({"number": number}, {"point": np.arange(number)})
    return Checkpoint(number, every_dtype(number), state, own)


def image(ledger: LedgerStore) -> object:
    assert isinstance(ledger, SqliteLedger)
    kept = ledger.checkpoint()
    arrays: list[object] = []
    if kept:
        states = [state for state in (kept.strategy, kept.wrapper) if state]
        parts = [kept.model, *(state.arrays for state in states)]
        arrays += [
            (name, a.dtype.name, a.shape, a.astype(a.dtype.newbyteorder("<")).tobytes())
            for part in parts
            for name, a in part.items()
        ]
        arrays += [kept.round, *(state.tree for state in states)]
    return ledger.head(), ledger.at_nodes([0, 1, MAX]), ledger.facts(), arrays


def reopened(folder: Path) -> object:
    with SqliteLedger(folder) as ledger:
        return image(ledger)


def committed(folder: Path, number: int) -> object:
    with SqliteLedger(folder) as ledger:
        ledger.commit(*_commit(number))
        return image(ledger)


def _commit(number: int) -> tuple[Head, list[DeviceRow], dict[int, str], Checkpoint]:
    rows = [replace(row, uploads=number) for row in ROWS]
    nodes = {0: ROWS[0].device, MAX: ROWS[number % 2].device}
    return head(number), rows, nodes, checkpoint(number)


def test_a_new_ledger_is_empty(tmp_path: Path) -> None:
    with SqliteLedger(tmp_path / "new" / "er") as ledger:
        assert ledger.head() is None
        assert ledger.checkpoint() is None
        assert ledger.at_nodes([1, MAX]) == {}
        assert ledger.devices([]) == {}
    assert stat.S_IMODE((tmp_path / "new" / "er").stat().st_mode) == 0o700
    database = tmp_path / "new" / "er" / DATABASE
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_all_comes_back_in_the_next_process(tmp_path: Path) -> None:
    expected = committed(tmp_path, 3)
    assert reopened(tmp_path) == expected
    with SqliteLedger(tmp_path) as ledger:
        assert ledger.head() == head(3)
        found = ledger.devices([ROWS[0].device, ROWS[1].device, "cc"])
        assert found == {row.device: replace(row, uploads=3) for row in ROWS}
        assert ledger.at_nodes([5, MAX, 0]) == {
            0: found[ROWS[0].device],
            MAX: found[ROWS[1].device],
        }


def test_a_commit_without_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    files = set(tmp_path.iterdir())
    with SqliteLedger(tmp_path) as ledger:
        ledger.commit(head(2), [replace(ROWS[0], refused=9)])
        kept = ledger.checkpoint()
        assert kept
        assert kept.round == 1
        assert ledger.head() == head(2)
        assert ledger.devices([ROWS[0].device])[ROWS[0].device].refused == 9
        assert ledger.devices([ROWS[1].device])[ROWS[1].device].uploads == 1
    assert set(tmp_path.iterdir()) == files


def test_a_strategy_without_state(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    with SqliteLedger(tmp_path) as ledger:
        ledger.commit(head(2), checkpoint=Checkpoint(2, {"w": np.ones(3)}))
        kept = ledger.checkpoint()
        assert kept
        assert kept.strategy is None
        ledger.commit(head(3), checkpoint=Checkpoint(3, {"w": np.ones(3)}))
    assert not list(tmp_path.glob("strategy-*"))


def test_more_devices_than_one_query_takes(tmp_path: Path) -> None:
    rows = [DeviceRow(f"{n:032x}", uploads=n) for n in range(2500)]
    with SqliteLedger(tmp_path) as ledger:
        ledger.commit(
            head(1), rows, {MAX - n: row.device for n, row in enumerate(rows)}
        )
        found = ledger.at_nodes([MAX - n for n in range(2500)])
        assert [found[MAX - n] for n in range(2500)] == rows


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    expected = committed(tmp_path, 1)
    bad = DeviceRow("dd", uploads=None)  # type: ignore[arg-type]
    with SqliteLedger(tmp_path) as ledger:
        with pytest.raises(StateError):
            ledger.commit(head(2), [ROWS[0], bad], {1: "dd"}, checkpoint(2))
        assert image(ledger) == expected
        ledger.commit(*_commit(3))
    assert len(list(tmp_path.glob("model-*"))) == 2


@pytest.mark.parametrize("kill", [True, False])
def test_failing_anywhere_leaves_the_old_or_the_new_round(
    tmp_path: Path, kill: bool
) -> None:
    old = committed(tmp_path / "old", 1)
    new = committed(tmp_path / "new", 2)
    call, calls = -1, [""]
    while len(calls) > call:
        call += 1
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "old", folder)
        ledger = SqliteLedger(folder)
        try:
            with failing_at(call, kill=kill) as calls:
                ledger.commit(*_commit(2))
        except (Killed, StateError):
            assert image(ledger) in (old, new)
        ledger.close()
        assert reopened(folder) in (old, new)
        assert len(list(folder.glob("*.safetensors"))) in (3, 6)
    assert reopened(folder) == new
    assert call > 8


def test_a_server_killed_while_it_commits_lost_nothing_whole(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.sync.test_ledger import SqliteLedger, _commit\n"
        "ledger = SqliteLedger(sys.argv[1])\n"
        "for n in range(1, 10**6):\n"
        "    ledger.commit(*_commit(n)); print(n, flush=True)"
    )
    root = Path(__file__).parents[2]
    for wait in (1, 4, 9):
        folder = tmp_path / str(wait)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        assert process.stdout
        for _ in range(wait):
            last = int(process.stdout.readline())
        process.kill()
        rest, _ = process.communicate()
        last = max([last, *map(int, rest.split())])
        with SqliteLedger(folder) as ledger:
            kept, found = ledger.checkpoint(), ledger.head()
            assert kept
            assert found
            assert kept.round in (last, last + 1)
            assert found == head(kept.round)
            rows = ledger.devices([row.device for row in ROWS])
            assert {row.uploads for row in rows.values()} == {kept.round}


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    with (
        SqliteLedger(tmp_path),
        pytest.raises(StateError, match=r"another process .* uses"),
    ):
        SqliteLedger(tmp_path)
    SqliteLedger(tmp_path).close()


def test_damaged_files_of_the_only_checkpoint_are_named(tmp_path: Path) -> None:
    expected = committed(tmp_path, 1)
    for path in sorted(tmp_path.glob("*.safetensors")):
        whole = path.read_bytes()
        flipped = bytes([whole[0] ^ 1]) + whole[1:]
        for data in (b"", whole[:-1], whole + b"x", flipped, bytes(len(whole))):
            path.write_bytes(data)
            with pytest.raises(DamagedStateError, match=path.name):
                SqliteLedger(tmp_path)
        path.unlink()
        with pytest.raises(DamagedStateError, match="backup"):
            SqliteLedger(tmp_path)
        path.write_bytes(whole)
    assert reopened(tmp_path) == expected


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    (tmp_path / DATABASE).write_bytes(b"not a database" * 999)
    with pytest.raises(DamagedStateError, match="backup"):
        SqliteLedger(tmp_path)


@pytest.mark.parametrize("pragma", ["user_version = 4", "application_id = 3"])
def test_another_format_is_refused(tmp_path: Path, pragma: str) -> None:
    committed(tmp_path, 1)
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute(f"PRAGMA {pragma}")
    database.close()
    with pytest.raises(DamagedStateError, match="another folder"):
        SqliteLedger(tmp_path)


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    ledger.close()
    ledger.close()
    with pytest.raises(StateError, match="closed"):
        ledger.head()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StateError, match="cannot be used"):
        SqliteLedger(tmp_path / "x")


@pytest.mark.parametrize("facts", [b"", b"noted", b"\xffcan\0", b"\xffcan\0\2\0abc"])
@pytest.mark.parametrize("can", [b"", b'{"codecs":["dense"]}'])
def test_what_a_device_can_is_kept_beside_its_facts(
    tmp_path: Path, facts: bytes, can: bytes
) -> None:
    row = DeviceRow("cc" * 16, facts=facts, can=can)
    with SqliteLedger(tmp_path) as ledger:
        ledger.commit(head(1), [row], {5: row.device})
    with SqliteLedger(tmp_path) as ledger:
        assert ledger.at_nodes([5]) == {5: row}
        assert ledger.facts() == ({row.device: facts} if facts else {})
