"""A model that is written as what changed of the one before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.sync import change, model_file
from flwr_caesar.sync import folder as folder_module
from flwr_caesar.sync.change import DATA, SIZES, apply_change, pack_change
from flwr_caesar.sync.errors import DamagedStateError, StateError
from flwr_caesar.sync.folder import MANIFEST, FolderStore
from flwr_caesar.sync.model_file import LEAST_BYTES, MOST_CHANGES
from flwr_caesar.sync.packing import seal, unseal
from flwr_caesar.sync.short import ShortResidual
from flwr_caesar.sync.state import DeviceState, Pending

from .faults import Killed, failing_at, image

LINEAGE = 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def history(count: int) -> list[DeviceState]:
    """States of a model that is trained on: a tenth of its elements a round."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(LEAST_BYTES // 4).astype(np.float32)
    states = []
    for number in range(count):
        model = {
            "weight": weight.reshape(512, -1),
            "half": np.full(9, number, np.float16),
            "steps": np.array(number),
        }
        states.append(DeviceState(bytes(16), LINEAGE, (1, number), number, model=model))
        touched = rng.random(weight.size) < 0.1
        weight = weight + np.float32(1e-3) * touched
    return states


def load(root: Path) -> DeviceState:
    with FolderStore(root, lock_seconds=0) as store:
        found = store.load(LINEAGE)
    assert found is not None
    return found


def work(root: Path, state: DeviceState) -> int:
    """Handle a message that brings a state's model; return the bytes written."""
    folder = root / f"{LINEAGE:016x}"
    before = {path.name for path in folder.iterdir()} if folder.exists() else set()
    with FolderStore(root, lock_seconds=0) as store:
        store.load(LINEAGE)
        prepared = store.prepare(state)
        assert image(prepared) == image(state)
        store.save(prepared)
    new = [path for path in folder.iterdir() if path.name not in before]
    return sum(path.stat().st_size for path in new)


def test_a_round_writes_what_changed_and_now_and_then_all(root: Path) -> None:
    states = history(2 * MOST_CHANGES + 3)
    written = []
    for state in states:
        written.append(work(root, state))
        assert image(load(root)) == image(state)
    whole = [number for number, count in enumerate(written) if count > LEAST_BYTES]
    assert whole == [0, MOST_CHANGES + 1, 2 * MOST_CHANGES + 2]
    changes = [count for number, count in enumerate(written) if number not in whole]
    assert max(changes) < 0.25 * LEAST_BYTES
    # What is not needed any more is gone.
    folder = root / f"{LINEAGE:016x}"
    assert len(list(folder.iterdir())) == 3


def test_the_same_model_is_not_written_again(root: Path) -> None:
    first, second = history(2)
    work(root, first)
    work(root, second)
    names = {path.name for path in (root / f"{LINEAGE:016x}").iterdir()}
    assert work(root, second) == 0
    assert {path.name for path in (root / f"{LINEAGE:016x}").iterdir()} == names


@pytest.mark.parametrize("other", ["unlike", "longer", "small"])
def test_what_is_no_small_change_is_written_whole(root: Path, other: str) -> None:
    (first,) = history(1)
    size = {"longer": LEAST_BYTES, "small": 2000}.get(other, LEAST_BYTES // 4)
    noise = np.random.default_rng(3).standard_normal(size).astype(np.float32)
    shaped = noise.reshape(512, -1) if other == "unlike" else noise
    second = replace(first, model={**first.model, "weight": shaped})
    for state in (first, second):
        work(root, state)
        assert image(load(root)) == image(state)
    manifest = unseal((root / f"{LINEAGE:016x}" / MANIFEST).read_bytes())
    assert "changes" not in manifest["files"]
    assert manifest["format"] == 3


def test_a_change_names_its_format(root: Path) -> None:
    for state in history(2):
        work(root, state)
    manifest = unseal((root / f"{LINEAGE:016x}" / MANIFEST).read_bytes())
    assert manifest["format"] == 4
    assert len(manifest["files"]["changes"]) == 1


def test_a_model_that_was_changed_in_place_is_not_built_upon(root: Path) -> None:
    first, second, third = history(3)
    work(root, first)
    work(root, second)
    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state is not None
        state.model["weight"][:] = 7.0  # as a method's half may do
        store.save(store.prepare(third))
    assert image(load(root)) == image(third)


def test_failing_anywhere_leaves_the_old_or_the_new_model(root: Path) -> None:
    states = history(3)
    old, new = states[1:]
    for call in range(200):
        shutil.rmtree(root, ignore_errors=True)
        for state in states[:2]:
            work(root, state)
        done = False
        store = FolderStore(root, lock_seconds=0)
        try:
            with failing_at(call, kill=call % 2 == 0) as calls:
                store.load(LINEAGE)
                store.save(store.prepare(new))
                done = len(calls) <= call
        except (Killed, StateError):
            pass
        store.close()
        assert image(load(root)) in (image(old), image(new)), call
        if done:
            break
    assert image(load(root)) == image(new)
    assert call > 12


def test_damage_to_any_file_of_the_chain_is_found(root: Path) -> None:
    for state in history(4):
        work(root, state)
    folder = root / f"{LINEAGE:016x}"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.startswith("change-") for name in whole) == 3
    for name, good in whole.items():
        for place in (0, 9, len(good) // 2, len(good) - 1):
            damaged = bytearray(good)
            damaged[place] ^= 4
            shutil.rmtree(root)
            folder.mkdir(mode=0o700, parents=True)
            for each, data in whole.items():
                (folder / each).write_bytes(damaged if each == name else data)
            with FolderStore(root, lock_seconds=0) as store:
                assert store.load(LINEAGE) is None, (name, place)


@pytest.mark.parametrize(
    "lie",
    [
        {"changes": 3},
        {"changes": [["../x", 1, 1]]},
        {"checksum": "0"},
        {"checksum": 0},
        {"changes": []},
    ],
)
def test_a_manifest_that_lies_of_changes_is_refused(
    root: Path, lie: dict[str, object]
) -> None:
    for state in history(2):
        work(root, state)
    path = root / f"{LINEAGE:016x}" / MANIFEST
    manifest = unseal(path.read_bytes())
    files = {**manifest["files"], **lie}
    if lie == {"changes": []}:
        del files["model"]
    path.write_bytes(seal({**manifest, "files": files}))
    with FolderStore(root, lock_seconds=0) as store:
        assert store.load(LINEAGE) is None


def test_what_is_damaged_while_the_app_works_is_written_anew(root: Path) -> None:
    first, second, third = history(3)
    work(root, first)
    work(root, second)
    folder = root / f"{LINEAGE:016x}"
    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state is not None
        state.model["weight"][:] = 0.0
        (changed,) = folder.glob("change-*")
        changed.write_bytes(bytes(changed.stat().st_size))
        store.save(store.prepare(third))
    assert image(load(root)) == image(third)


@given(st.binary(max_size=300), st.data())
def test_a_change_makes_the_new_bytes_of_the_old(old: bytes, data: st.DataObject):
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    cut = data.draw(st.integers(0, len(old)))
    image = np.frombuffer(bytearray(old), np.uint8)
    found = pack_change(image, [new[:cut], new[cut:]], most=1 << 20)
    assert found is not None
    apply_change(image, found)
    assert image.tobytes() == new


@pytest.mark.parametrize(
    "lie",
    [
        {SIZES: np.array([[64], [5]])},
        {SIZES: np.array([[change._BLOCK + 1], [5]])},
        {SIZES: np.array([[-64, 128], [5, 5]])},
        {SIZES: np.array([64])},
        {SIZES: np.array([[64.0], [5.0]])},
        {DATA: np.zeros(5, np.uint8)},
        {DATA: None},
    ],
)
def test_a_change_that_is_none_is_refused(lie: dict[str, np.ndarray]) -> None:
    image = np.arange(64, dtype=np.uint8)
    good = pack_change(image, [bytes(64)], most=1 << 20)
    assert good is not None
    parts = {key: value for key, value in {**good, **lie}.items() if value is not None}
    with pytest.raises(DamagedStateError):
        apply_change(image.copy(), parts)


def test_a_change_that_is_too_large_is_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
    assert pack_change(np.zeros(4096, np.uint8), [noise.data], most=3000) is None
    assert model_file.MOST_CHANGES > 0


def of_format_4() -> list[DeviceState]:
    """The states in ``kept/state-4``: the second is a change of the first."""
    weight = np.arange(4096, dtype=np.float32).reshape(64, 64)
    residual = ShortResidual.of(
        {"bias": weight[0], "weight": weight / 3}, least_bytes=0
    )
    before = DeviceState(bytes(16), LINEAGE, (1, 1), 1, model={"weight": weight})
    after = replace(before, model={"weight": weight + 1}, residual=residual)
    return [before, after]


def test_a_state_of_format_4_goes_on(root: Path) -> None:
    """It was written by the release that came with it, and is never written again."""
    shutil.copytree(Path(__file__).parent / "kept" / "state-4", root)
    root.chmod(0o700)
    manifest = unseal((root / f"{LINEAGE:016x}" / MANIFEST).read_bytes())
    assert set(manifest["files"]) == {
        *("model", "changes", "checksum", "memory", "residual"),
    }
    after = of_format_4()[1]
    assert image(load(root)) == image(after)
    work(root, replace(after, version=9))
    assert image(load(root)) == image(replace(after, version=9))


def test_a_state_of_format_3_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a residual in 32 bits, in one file with the rest."""
    (first,) = history(1)
    left = np.random.default_rng(0).standard_normal(LEAST_BYTES).astype(np.float32)
    old = replace(first, residual={"w": left})
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "LEAST_BYTES", 1 << 40)
        work(root, old)
    folder = root / f"{LINEAGE:016x}"
    manifest = unseal((folder / MANIFEST).read_bytes())
    assert (manifest["format"], set(manifest["files"])) == (3, {"model", "memory"})
    assert image(load(root)) == image(old)
    new = replace(old, order=(1, 9), residual=ShortResidual.of(old.residual))
    for state in (replace(old, order=(1, 8)), new):
        work(root, state)
        assert image(load(root)) == image(state)
    assert len(list(folder.glob("residual-*"))) == 1


def test_what_is_settled_does_not_write_the_residual_again(root: Path) -> None:
    (first,) = history(1)
    left = np.ones(LEAST_BYTES, np.float32)
    upload = Pending(3, (1, 0), b"frame")
    residual = ShortResidual.of({"w": left})
    work(root, replace(first, residual=residual, pending=(upload,)))
    settled = replace(load(root), pending=(), settled=(3,), order=(1, 1))
    assert work(root, settled) < 10_000
    assert image(load(root)) == image(settled)
