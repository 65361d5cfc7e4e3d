from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.lock import FileLock

HOLD = (
    "import os, sys, time; from pathlib import Path\n"
    "from flwr_caesar.sync.lock import FileLock\n"
    "lock = FileLock(Path(sys.argv[1]), what='it')\n"
    "lock.acquire(seconds=0)\n"
    "child = os.fork() if sys.argv[2] == 'fork' else 0\n"
    "if child == 0 and sys.argv[2] == 'fork': time.sleep(600)\n"
    "print(child, flush=True); time.sleep(600)\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.lock"


def lock_on(path: Path) -> FileLock:
    return FileLock(path, what="it")


class Holder:
    """Another process that has the lock, and perhaps a child that it forked."""

    def __init__(self, path: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), how],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.child = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def forked(path: Path) -> Iterator[Holder]:
    holder = Holder(path, "fork")
    yield holder
    holder.kill()
    os.kill(holder.child, signal.SIGKILL)


def refused(path: Path) -> str:
    with pytest.raises(StateError) as caught:
        lock_on(path).acquire(seconds=0)
    return str(caught.value)


def test_who_has_it_is_named(path: Path) -> None:
    holder = Holder(path, "plain")
    try:
        comm = Path(f"/proc/{holder.process.pid}/comm").read_text().strip()
        named = f"another process ({holder.process.pid}, {comm}) uses it"
        assert refused(path) == named
    finally:
        holder.kill()
    lock_on(path).acquire(seconds=0)


def test_the_child_of_a_killed_holder_keeps_nobody_out(
    path: Path, forked: Holder
) -> None:
    assert f"({forked.process.pid}, " in refused(path)
    forked.kill()
    os.kill(forked.child, 0)  # it lives
    lock_on(path).acquire(seconds=0)


def test_a_child_does_not_have_its_parents_lock(path: Path) -> None:
    lock = lock_on(path)
    lock.acquire(seconds=0)
    pid = os.fork()
    if pid == 0:
        try:
            status = 0 if not lock.is_held else 1
            lock.release(remove=True)
            try:
                lock_on(path).acquire(seconds=0)
                status = 2
            except StateError:
                pass
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.exists()
    assert lock.is_held
    assert str(os.getpid()) in refused(path)


def test_one_process_takes_it_once_and_does_not_lose_it_by_trying(path: Path) -> None:
    lock = lock_on(path)
    lock.acquire(seconds=0)
    assert str(os.getpid()) in refused(path)
    lock.release()
    again = lock_on(path)
    again.acquire(seconds=0)
    code = (
        "import sys; from pathlib import Path\n"
        "from flwr_caesar.sync.lock import FileLock\n"
        "FileLock(Path(sys.argv[1]), what='it').acquire(seconds=0)\n"
    )
    other = [sys.executable, "-c", code, str(path)]
    assert refused(path)
    assert b"uses it" in subprocess.run(other, capture_output=True).stderr
    again.release(remove=True)
    again.release(remove=True)
    assert not path.exists()
    assert subprocess.run(other).returncode == 0


def test_a_lock_that_was_removed_is_not_taken_for_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removes the file between our opening it and our locking it."""
    real = os.open

    def removed(*args: int) -> int:
        fd = real(*args)
        path.unlink()
        monkeypatch.setattr(os, "open", real)
        return fd

    monkeypatch.setattr(os, "open", removed)
    lock = lock_on(path)
    with pytest.raises(StateError):
        lock.acquire(seconds=0)
    lock.acquire(seconds=0)
    assert path.exists()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        lock_on(path).acquire(seconds=0)


def test_a_child_can_take_what_its_parent_gave_back(path: Path) -> None:
    lock = lock_on(path)
    lock.acquire(seconds=0)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.read(reader, 1)
            lock_on(path).acquire(seconds=0)
            status = 0
        finally:
            os._exit(status)
    lock.release()
    os.write(writer, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reader)
    os.close(writer)
