from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import get_codec
from flwr_caesar.sync import packing
from flwr_caesar.sync.aside import MOST_KEPT
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.folder import MANIFEST, FolderStore, default_state_dir
from flwr_caesar.sync.packing import seal, unseal
from flwr_caesar.sync.state import MAX_TOLD_BYTES, DeviceState, DeviceStore, Pending

from .faults import Killed, failing_at, image, logged, sample

LINEAGE = sample(0).lineage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def warnings() -> Iterator[list[logging.LogRecord]]:
    with logged() as records:
        yield records


def load(root: Path, lineage: int = LINEAGE) -> DeviceState | None:
    with FolderStore(root, lock_seconds=0) as store:
        return store.load(lineage)


def save(root: Path, *states: DeviceState) -> Path:
    with FolderStore(root, lock_seconds=0) as store:
        for state in states:
            store.save(state)
    return root / f"{states[-1].lineage:016x}"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def aside(root: Path) -> list[Path]:
    return sorted(root.glob("*.damaged-*"))


def test_a_state_comes_back_whole(root: Path) -> None:
    store: DeviceStore = FolderStore(root)
    assert store.load(LINEAGE) is None
    store.save(sample(1))
    assert image(store.load(LINEAGE)) == image(sample(1))


def test_a_state_comes_back_in_another_process(root: Path) -> None:
    save(root, sample(1), sample(2), DeviceState(bytes(16), 5))
    assert image(load(root)) == image(sample(2))
    assert image(load(root, 5)) == image(DeviceState(bytes(16), 5))


def test_arrays_that_were_loaded_can_be_changed(root: Path) -> None:
    save(root, sample(1))
    state = load(root)
    assert state
    assert all(a.flags.writeable and a.flags.aligned for a in state.model.values())


def test_only_what_changed_is_written(root: Path) -> None:
    folder = save(root, sample(1))
    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state
        before = files(folder)
        store.save(replace(state, order=(2**62, 99)))
        assert files(folder) == before
        store.save(replace(state, residual={"w": np.ones(2, np.float32)}))
        assert len(files(folder) & before) == 2
        store.save(sample(4, version=8))
        assert files(folder) & before == {MANIFEST}
    assert image(load(root)) == image(sample(4, version=8))


def test_an_upload_is_not_taken_for_another_of_its_length(root: Path) -> None:
    """Frames end with their CRC, which makes the CRC of what they are in the same."""
    codec = get_codec("dense")
    noise = np.random.default_rng(0).integers(0, 256, (2, 60), np.uint8)
    frames = [codec.encode({"w": values})[0] for values in noise]
    assert len(frames[0]) == len(frames[1])
    states = [
        replace(sample(0), residual={}, pending=(Pending(7, (1, n), frame),))
        for n, frame in enumerate(frames)
    ]
    save(root, *states)
    (pending,) = load(root).pending
    assert pending.frame == frames[1]


def test_a_residual_changed_in_place_is_written(root: Path) -> None:
    state = sample(1)
    with FolderStore(root) as store:
        store.save(state)
        state.residual["w"][3] = 17.0
        store.save(state)
    assert image(load(root)) == image(state)


@pytest.mark.parametrize("kill", [True, False])
def test_failing_anywhere_leaves_the_old_or_the_new_state(
    root: Path, kill: bool
) -> None:
    old, new = sample(1), sample(2, version=4)
    seen = []
    for call in range(200):
        shutil.rmtree(root, ignore_errors=True)
        save(root, old)
        store = FolderStore(root, lock_seconds=0)
        done = False
        try:
            with failing_at(call, kill=kill) as calls:
                store.load(LINEAGE)
                store.save(store.prepare(new))
                done = len(calls) <= call
        except (Killed, StateError):
            pass
        if not kill:
            assert image(store.load(LINEAGE)) in (image(old), image(new))
        store.close()
        found = image(load(root))
        assert found in (image(old), image(new)), call
        seen.append(found == image(new))
        assert len(files(root / f"{LINEAGE:016x}")) == 3
        if done:
            break
    assert seen[-1]
    assert not seen[0]
    assert len(seen) > 12
    assert seen == sorted(seen)


def test_all_is_on_the_disk_before_it_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty: set[int] = set()
    log: list[str] = []
    write, fsync, rename = os.write, os.fsync, os.replace

    def on_write(fd: int, data: memoryview) -> int:
        dirty.add(os.fstat(fd).st_ino)
        return write(fd, data)

    def on_fsync(fd: int) -> None:
        found = os.fstat(fd)
        dirty.discard(found.st_ino)
        log.append("folder" if stat.S_ISDIR(found.st_mode) else "file")
        fsync(fd)

    def on_replace(source: Path, target: Path) -> None:
        assert not dirty
        log.append("replace")
        rename(source, target)

    monkeypatch.setattr(os, "write", on_write)
    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(os, "replace", on_replace)
    save(root, sample(1))
    assert log == ["folder", "file", "file", "folder", "file", "replace", "folder"]


def test_damage_to_any_file_is_found_and_kept(
    root: Path, warnings: list[logging.LogRecord]
) -> None:
    folder = save(root, sample(1))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    rng = np.random.default_rng(0)
    for name, good in whole.items():
        torn = [good[: int(cut)] for cut in rng.integers(0, len(good), 12)]
        damaged = [b"", good + b"x", bytes(len(good)), *torn, *_flips(good)]
        for data in [*damaged, *([] if name == MANIFEST else [None])]:
            _put(folder, {**whole, name: data})
            warnings.clear()
            assert load(root) is None
            (said,) = (record.getMessage() for record in warnings)
            kept = aside(root)[-1]
            assert str(kept) in said
            there = {path.name: path.read_bytes() for path in kept.iterdir()}
            assert there == {k: v for k, v in whole.items() if k != name} | (
                {} if data is None else {name: data}
            )
            assert len(aside(root)) <= MOST_KEPT
    _put(folder, whole)
    assert image(load(root)) == image(sample(1))


def _put(folder: Path, contents: Mapping[str, bytes | None]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, data in contents.items():
        if data is not None:
            (folder / name).write_bytes(data)


def _flips(whole: bytes) -> Iterator[bytes]:
    for position in np.random.default_rng(1).integers(0, 8 * len(whole), 60):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        yield bytes(data)


def test_a_damaged_folder_is_used_again(root: Path) -> None:
    folder = save(root, sample(1))
    (folder / MANIFEST).write_bytes(b"x")
    with FolderStore(root) as store:
        assert store.load(LINEAGE) is None
        store.save(sample(2))
    assert image(load(root)) == image(sample(2))
    assert len(files(folder)) == 3
    (kept,) = aside(root)
    assert (kept / MANIFEST).read_bytes() == b"x"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 6},
        {"format": True},
        {"format": None},
        {"lineage": 5},
        {"lineage": "5"},
        {"order": [1]},
        {"order": [1, 2.5]},
        {"token": "zz"},
        {"pending": []},
        {"pending": [[1, 1, 1]] * 3},
        {"settled": None},
        {"files": {"model": ["../model-0", 1, 1], "memory": []}},
        {"files": []},
    ],
)
def test_a_sealed_manifest_that_lies_is_refused(
    root: Path, change: dict[str, object], warnings: list[logging.LogRecord]
) -> None:
    manifest = save(root, sample(1)) / MANIFEST
    manifest.write_bytes(seal({**unseal(manifest.read_bytes()), **change}))
    assert load(root) is None
    assert len(warnings) == 1


def test_a_newer_format_is_named(root: Path, warnings: list[logging.LogRecord]) -> None:
    manifest = save(root, sample(1)) / MANIFEST
    manifest.write_bytes(seal({"format": 7}))
    assert load(root) is None
    assert "format 7" in warnings[0].getMessage()


def test_a_device_is_the_same_on_another_disk_and_another_system(
    tmp_path: Path, root: Path
) -> None:
    """Identity is the token; which of two copies goes on, the server finds."""
    folder = save(root, sample(1))
    shutil.copytree(root, tmp_path / "copy")
    for place in (tmp_path / "copy", root):
        assert image(load(place)) == image(sample(1))
    # What would change with the disk or the system is not even there.
    assert unseal((folder / MANIFEST).read_bytes()).keys() == {
        *("format", "token", "lineage", "order", "version", "digest"),
        *("pending", "settled", "codec_version", "files"),
    }


def test_a_state_of_format_2_goes_on(root: Path) -> None:
    shutil.copytree(Path(__file__).parent / "kept" / "state-2", root)
    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state
        assert image(state) == image(sample(1))
        store.save(replace(state, version=9))
    assert image(load(root)) == image(replace(sample(1), version=9))


def test_a_folder_that_was_moved_still_counts(tmp_path: Path, root: Path) -> None:
    save(root, sample(1))
    root.rename(tmp_path / "moved")
    assert image(load(tmp_path / "moved")) == image(sample(1))


def test_a_lineage_under_another_name_is_refused(root: Path) -> None:
    save(root, sample(1)).rename(root / f"{5:016x}")
    assert load(root, 5) is None


def test_folders_and_files_are_for_their_owner_only(root: Path) -> None:
    previous = os.umask(0)
    try:
        folder = save(root, sample(1))
    finally:
        os.umask(previous)
    for path in (root, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_wider_permissions_are_tightened(root: Path) -> None:
    folder = save(root, sample(1))
    for path in (root, folder):
        path.chmod(0o755)
    assert image(load(root)) == image(sample(1))
    for path in (root, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_shared_folder_with_other_things_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    (root / "letters").mkdir()
    with pytest.raises(StateError, match="chmod 700"):
        load(root)
    with pytest.raises(StateError, match="chmod 700"):
        save(root, sample(1))
    assert stat.S_IMODE(root.stat().st_mode) == 0o777


def test_a_link_in_place_of_a_lineage_is_refused(tmp_path: Path, root: Path) -> None:
    save(root, sample(1)).rename(tmp_path / "elsewhere")
    (root / f"{LINEAGE:016x}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="not a folder"):
        load(root)


def test_another_users_folder_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, sample(1))
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to user"):
        load(root)


CANNOT_READ = [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM, errno.EACCES]


@pytest.mark.parametrize("code", CANNOT_READ)
@pytest.mark.parametrize("call", ["open", "preadv", "fstat", "mkdir", "stat"])
def test_what_cannot_be_read_is_not_taken_for_broken(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[logging.LogRecord],
    code: int,
    call: str,
) -> None:
    """Wherever it fails, and whichever call of its kind: refused, and whole later."""
    folder = save(root, sample(1))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = getattr(os, call)
    for good in range(100):
        seen = 0

        def fail(*args: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen > good:  # noqa: B023
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        with monkeypatch.context() as patch, FolderStore(root) as store:
            patch.setattr(os, call, fail)
            try:
                found = store.load(LINEAGE)
            except StateError as err:
                assert os.strerror(code) in str(err)  # noqa: PT017
            else:
                assert image(found) == image(sample(1))
                break
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert good or call == "mkdir"
    assert not warnings
    assert not aside(root)
    assert image(load(root)) == image(sample(1))


def test_a_process_without_descriptors_goes_on_later(root: Path) -> None:
    save(root, sample(1))
    code = (
        "import os, resource, sys; from flwr_caesar.sync.folder import FolderStore\n"
        "from flwr_caesar.sync.errors import StateError\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "store = FolderStore(sys.argv[1])\n"
        "for spare in range(40):\n"
        "    taken = [int(n) for n in os.listdir('/proc/self/fd')]\n"
        "    limit = sorted({*range(512)} - {*taken})[spare]\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))\n"
        "    try: found = store.load(int(sys.argv[2]))\n"
        "    except StateError as err: print(str(err).partition('raise its')[1])\n"
        "    else: print(found.token.hex()); break\n"
        "    finally: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(LINEAGE)],
        capture_output=True,
        text=True,
    )
    *refused, last = done.stdout.splitlines()
    assert last == sample(1).token.hex(), done.stderr
    assert refused
    assert set(refused) == {"raise its"}
    assert image(load(root)) == image(sample(1))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_cannot_be_written_is_found_before_the_work(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    save(root, sample(1))
    real = os.open

    def refuse(path: str, flags: int, *rest: int, **kwargs: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and not str(path).endswith(".lock"):
            raise OSError(code, os.strerror(code), path)
        return real(path, flags, *rest, **kwargs)

    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            for work in (state, sample(2, version=9)):
                with pytest.raises(StateError, match="state-dir"):
                    store.prepare(work)
            with pytest.raises(StateError, match="state-dir"):
                store.save(sample(2))
    assert image(load(root)) == image(sample(1))


def test_a_disk_without_room_for_the_outcome_is_found_before_the_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = sample(1)
    needed = sum(array.nbytes for array in state.model.values())
    real = os.statvfs

    def free(blocks: int) -> None:
        def statvfs(path: Path) -> os.statvfs_result:
            found = list(real(path))
            found[1], found[3], found[4] = 1, blocks, blocks
            return os.statvfs_result(found)

        monkeypatch.setattr(os, "statvfs", statvfs)

    with FolderStore(root) as store:
        free(needed - 1)
        with pytest.raises(StateError, match="free some space"):
            store.prepare(state)
        free(needed)
        store.save(store.prepare(state))
    assert image(load(root)) == image(state)


def test_what_is_prepared_is_written_once_and_leaves_nothing_behind(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(root, sample(1))
    with FolderStore(root) as store:
        store.load(LINEAGE)
        before = files(folder)
        ready = store.prepare(sample(2, version=9))
        assert image(ready) == image(sample(2, version=9))
        (model,) = files(folder) - before
        assert load_unlocked(root) == image(sample(1))
        store.save(ready)
        assert model in files(folder)
        assert len(files(folder)) == 3
        again = store.prepare(ready)
        assert len(files(folder)) == 3
        assert image(again) == image(ready)
        store.prepare(sample(3, version=11))
    # The process died at work: the next one finds what was saved last.
    assert len(files(folder)) == 4
    assert image(load(root)) == image(ready)
    assert len(files(folder)) == 3


def load_unlocked(root: Path) -> Any:
    copy = root.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy)
    return image(load(copy))


@pytest.mark.parametrize("name", [MANIFEST, "model", "memory"])
def test_links_are_not_followed(tmp_path: Path, root: Path, name: str) -> None:
    folder = save(root, sample(1))
    (path,) = folder.glob(f"{name}*")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="replace the link"):
        load(root)
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    assert image(load(root)) == image(sample(1))


@pytest.mark.parametrize("size", [MAX_TOLD_BYTES, MAX_TOLD_BYTES + 1])
def test_what_was_told_is_kept_up_to_its_limit(root: Path, size: int) -> None:
    told = '{"x": "%s"}' % ("é" * 9)
    told += " " * (size - len(told.encode()))
    state = replace(sample(1), pending=(Pending(1, (1, 1), b"f", told=told),))
    folder = save(root, sample(2))
    if size > MAX_TOLD_BYTES:
        with pytest.raises(StateError, match="at most 16777216"):
            save(root, state)
        state = sample(2)
    else:
        save(root, state)
    assert image(load(root)) == image(state)
    assert (folder / MANIFEST).stat().st_size < 4096


def test_a_manifest_that_no_reader_would_take_is_not_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (save(root, sample(1)) / MANIFEST).stat().st_size
    monkeypatch.setattr(packing, "MAX_MANIFEST_BYTES", size)
    save(root, sample(1))
    monkeypatch.setattr(packing, "MAX_MANIFEST_BYTES", size - 1)
    with pytest.raises(StateError, match="can be kept"):
        save(root, sample(1))
    assert image(load(root)) == image(sample(1))


def test_what_is_damaged_gives_way_first(root: Path) -> None:
    for number in (1, 2):
        save(root, sample(number, lineage=number))
    folder = save(root, sample(3, lineage=3))
    (folder / MANIFEST).write_bytes(b"x")
    assert load(root, 3) is None
    size = sum(p.stat().st_size for p in (root / f"{1:016x}").iterdir())
    with FolderStore(root, max_bytes=4 * size) as store:
        store.save(sample(3, lineage=3))
        assert aside(root)
        store.save(sample(4, lineage=4))
    assert not aside(root)
    for number in (1, 2, 3, 4):
        assert image(load(root, number)) == image(sample(number, lineage=number))


def test_a_state_dir_that_is_a_file(root: Path) -> None:
    root.write_text("")
    with pytest.raises(StateError, match="state-dir"):
        load(root)
    with pytest.raises(StateError, match="state-dir"):
        save(root, sample(1))


def test_two_processes_exclude_each_other(root: Path) -> None:
    code = (
        "import sys; from flwr_caesar.sync.folder import FolderStore\n"
        "store = FolderStore(sys.argv[1])\n"
        "store.load(int(sys.argv[2])); print('locked', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(LINEAGE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "locked\n"
        for act in (lambda: load(root), lambda: save(root, sample(1))):
            with pytest.raises(
                StateError, match=rf"another process \({process.pid}, .*\) uses"
            ):
                act()
        save(root, sample(1, lineage=5))
    finally:
        process.kill()
        process.communicate()
    save(root, sample(1))
    assert image(load(root)) == image(sample(1))


def test_the_oldest_lineages_give_way(root: Path) -> None:
    for number in (1, 2, 3):
        manifest = save(root, sample(number, lineage=number)) / MANIFEST
        os.utime(manifest, (1000 * number, 1000 * number))
    size = sum(p.stat().st_size for p in (root / f"{1:016x}").iterdir())
    with FolderStore(root, max_bytes=3 * size) as store:
        store.save(sample(4, lineage=4))
    assert load(root, 1) is None
    assert not (root / f"{1:016x}.lock").stat().st_size
    for number in (2, 3, 4):
        assert image(load(root, number)) == image(sample(number, lineage=number))


def test_lineages_that_nobody_uses_expire(root: Path) -> None:
    day = 24 * 3600
    ages = {1: 91 * day, 2: 89 * day, 3: time.time() - 1000}
    for number, age in ages.items():
        manifest = save(root, sample(number, lineage=number)) / MANIFEST
        os.utime(manifest, (time.time() - age,) * 2)
    save(root, sample(4, lineage=4))
    assert load(root, 1) is None
    # The third was written by a board whose clock was not set.
    for number in (2, 3, 4):
        assert image(load(root, number)) == image(sample(number, lineage=number))
    with FolderStore(root, max_days=30) as store:
        store.save(sample(4, lineage=4))
    assert load(root, 2) is None
    assert load(root, 3)


def test_lineages_take_a_share_of_the_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        manifest = save(root, sample(number, lineage=number)) / MANIFEST
        os.utime(manifest, (time.time() - 100 + number,) * 2)
    size = sum(p.stat().st_size for p in (root / f"{1:016x}").iterdir())
    system = os.statvfs(root)
    blocks = 22 * size // system.f_frsize

    def small(_: object) -> os.statvfs_result:
        fields = list(system)
        fields[2:5] = [blocks, blocks, blocks]
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", small)
    save(root, sample(3, lineage=3))
    monkeypatch.undo()
    assert load(root, 1) is None
    assert load(root, 2)
    assert load(root, 3)


def test_a_lineage_in_use_is_not_evicted(root: Path) -> None:
    save(root, sample(1, lineage=1))
    with FolderStore(root) as other:
        assert other.load(1)
        with FolderStore(root, max_bytes=1) as store:
            store.save(sample(2, lineage=2))
    assert load(root, 1)
    assert load(root, 2)


@pytest.mark.parametrize("lineage", [0, -1, 2**64])
def test_a_lineage_is_a_nonzero_64_bit_number(root: Path, lineage: int) -> None:
    with pytest.raises(StateError, match="not a lineage"):
        load(root, lineage)


def test_an_array_that_cannot_be_kept(root: Path) -> None:
    save(root, sample(1))
    bad = replace(sample(2), residual={"w": np.ones(2, complex)})
    with pytest.raises(StateError, match="complex128"):
        save(root, bad)
    assert image(load(root)) == image(sample(1))


def test_the_default_follows_the_base_directory_specification(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/x")
    assert default_state_dir() == Path("/var/lib/x/flwr-caesar")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        expected = Path.home() / ".local/state/flwr-caesar"
        assert default_state_dir() == expected


def test_model_files_are_safetensors(root: Path) -> None:
    from safetensors import safe_open

    folder = save(root, sample(1))
    (path,) = folder.glob("model-*")
    with safe_open(path, "numpy") as file:
        names = {name.removeprefix("model/") for name in file.keys()}  # noqa: SIM118
        array = file.get_tensor("model/float32.empty")
        assert file.get_slice("model/bfloat16.0").get_dtype() == "BF16"
    assert names == set(sample(1).model)
    assert array.shape == (0, 4)
    assert json.loads((folder / MANIFEST).read_bytes().partition(b"\n")[2])


def test_damage_inside_a_long_array_is_found(root: Path) -> None:
    rng = np.random.default_rng(0)
    residual = {"w": rng.standard_normal(300_001).astype(np.float32)}
    folder = save(root, replace(sample(1), residual=residual))
    (path,) = folder.glob("residual-*")
    whole = path.read_bytes()
    page = 4096
    swapped = whole[:page] + whole[2 * page : 3 * page] + whole[page : 2 * page]
    words = whole[:page] + whole[page + 8 : page + 16] + whole[page : page + 8]
    holed = whole[: 5 * page] + bytes(page)
    long = [start + whole[len(start) :] for start in (swapped, words, holed)]
    for data in [*long, *_flips(whole)]:
        path.write_bytes(data)
        assert load(root) is None
        aside(root)[-1].rename(folder)
    path.write_bytes(whole)
    assert load(root)
