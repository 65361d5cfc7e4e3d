"""A model that is written as what changed of the one before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.sync import folder as folder_module
from flwr_caesar.sync.blocks import LENGTHS, TURNS, blocks_file
from flwr_caesar.sync.change import (
    DATA,
    SIZES,
    pack_changes,
)
from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.files import write_arrays
from flwr_caesar.sync.folder import MANIFEST, FolderStore
from flwr_caesar.sync.model_file import LEAST_BYTES
from flwr_caesar.sync.packing import seal, unseal
from flwr_caesar.sync.short import ShortResidual
from flwr_caesar.sync.state import DeviceState, Pending
from flwr_caesar.sync.state_files import named
from flwr_caesar.sync.tensors import checksum, to_chunks

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


def test_every_round_writes_what_changed_and_a_part_of_the_rest(root: Path) -> None:
    written = []
    folder = root / f"{LINEAGE:016x}"
    for state in history(3 * TURNS):
        written.append(work(root, state))
        assert image(load(root)) == image(state)
        assert len(list(folder.glob("*.safetensors"))) <= TURNS + 2
    size = written.pop(0)
    assert size > LEAST_BYTES
    # A tenth of the elements changes, of which 24 bits differ, and says where it is.
    change = 0.1 * size + 0.1 * size
    assert max(written) < size / TURNS + change + 2 * (1 << 17)
    # What is not needed any more is gone: the first model too.
    assert not list(folder.glob("model-*"))


def test_what_is_never_trained_is_never_written_again(root: Path) -> None:
    (first,) = history(1)
    frozen = np.random.default_rng(4).standard_normal(LEAST_BYTES).astype(np.float32)
    written = []
    folder = root / f"{LINEAGE:016x}"
    for number in range(3 * TURNS):
        head = np.full(20_000, number, np.float32)
        state = replace(first, version=number, model={"frozen": frozen, "head": head})
        written.append(work(root, state))
        assert image(load(root)) == image(state)
        assert len(list(folder.glob("*.safetensors"))) <= TURNS + 3
    assert max(written[1:]) < 2 * (1 << 17) + 30_000
    assert len(list(folder.glob("model-*"))) == 1


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
    assert "blocks" not in manifest["files"]
    assert manifest["format"] == 3


def test_a_change_names_its_format(root: Path) -> None:
    for state in history(2):
        work(root, state)
    manifest = unseal((root / f"{LINEAGE:016x}" / MANIFEST).read_bytes())
    assert manifest["format"] == 5
    assert len(manifest["files"]["blocks"]["files"]) == 2


def test_nobody_can_change_what_a_model_is_built_upon(root: Path) -> None:
    first, second, third = history(3)
    work(root, first)
    work(root, second)
    with FolderStore(root) as store:
        state = store.load(LINEAGE)
        assert state is not None
        for held in (state, store.prepare(third)):
            with pytest.raises(ValueError, match="read-only"):
                held.model["weight"][:] = 7.0
        store.save(third)
    assert image(load(root)) == image(third)


def test_a_model_that_is_another_one_when_it_is_saved_is_written(root: Path) -> None:
    """As where a method's half puts another one into the state after the work."""
    first, second, third = history(3)
    work(root, first)
    with FolderStore(root) as store:
        store.load(LINEAGE)
        prepared = store.prepare(second)
        model = {**prepared.model, "weight": third.model["weight"]}
        store.save(replace(prepared, model=model))
    assert image(load(root)) == image(replace(second, model=model))


def test_a_model_that_was_not_loaded_is_built_upon(root: Path) -> None:
    first, second, third = history(3)
    work(root, first)
    with FolderStore(root) as store:
        store.load(LINEAGE)
        store.prepare(second)
        store.save(third)
        store.save(store.prepare(first))
    assert image(load(root)) == image(first)


def test_failing_anywhere_leaves_the_old_or_the_new_model(root: Path) -> None:
    """In a round after which files of rounds before it are not needed any more."""
    states = history(TURNS + 2)
    old, new = states[-2:]
    for state in states[:-1]:
        work(root, state)
    kept = root.with_name("kept")
    root.rename(kept)
    for call in range(200):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(kept, root)
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
    names = [{path.name for path in each.glob("*/*")} for each in (kept, root)]
    assert names[0] - names[1]
    assert call > 12


def test_damage_to_any_file_is_found_or_of_no_effect(root: Path) -> None:
    states = history(4)
    for state in states:
        work(root, state)
    folder = root / f"{LINEAGE:016x}"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.startswith("change-") for name in whole) == 3
    found = 0
    for name, good in whole.items():
        for place in (0, 9, len(good) // 2, len(good) - 1, None):
            damaged = bytearray(good)
            if place is not None:
                damaged[place] ^= 4
            else:
                del damaged[-1]
            shutil.rmtree(root)
            folder.mkdir(mode=0o700, parents=True)
            for each, data in whole.items():
                (folder / each).write_bytes(damaged if each == name else data)
            with FolderStore(root, lock_seconds=0) as store:
                state = store.load(LINEAGE)
            # Of a block that was written whole since, an older file may say anything.
            assert state is None or image(state) == image(states[-1]), (name, place)
            found += state is None
    assert found >= 4 * len(whole) - 4


@pytest.mark.parametrize(
    "lie",
    [
        {"files": 3},
        {"files": [["../x", 1, 1]]},
        {"files": []},
        {"checksum": "0"},
        {"checksum": 0},
        {"starts": []},
        {"starts": [0] * 9},
        {"starts": [7] * 9},
        {"starts": [-1] * 9},
        {"starts": [0.0] * 9},
        {"size": 1 << 60},
        {"size": -1},
        {"size": 0, "starts": []},
    ],
    ids=repr,
)
def test_a_manifest_that_lies_of_blocks_is_refused(
    root: Path, lie: dict[str, object]
) -> None:
    for state in history(2):
        work(root, state)
    path = root / f"{LINEAGE:016x}" / MANIFEST
    manifest = unseal(path.read_bytes())
    assert len(manifest["files"]["blocks"]["starts"]) == 9
    blocks = {**manifest["files"]["blocks"], **lie}
    path.write_bytes(
        seal({**manifest, "files": {**manifest["files"], "blocks": blocks}})
    )
    with FolderStore(root, lock_seconds=0) as store:
        assert store.load(LINEAGE) is None


@pytest.mark.parametrize(
    "lie",
    [
        {LENGTHS: np.array([1, 2])},
        {LENGTHS: np.full(9, -1)},
        {LENGTHS: np.zeros(9)},
        {LENGTHS: np.zeros((3, 3), np.int64)},
        {DATA: np.zeros(5, np.uint8)},
        {DATA: None},
    ],
)
def test_a_file_of_changes_that_is_none_is_refused(
    root: Path, lie: dict[str, np.ndarray]
) -> None:
    for state in history(2):
        work(root, state)
    folder = root / f"{LINEAGE:016x}"
    good = blocks_file([b""] * 9)
    parts = {key: value for key, value in {**good, **lie}.items() if value is not None}
    forged = write_arrays(folder, "change", parts)
    manifest = unseal((folder / MANIFEST).read_bytes())
    manifest["files"]["blocks"]["files"][1] = forged.to_json()
    (folder / MANIFEST).write_bytes(seal(manifest))
    with FolderStore(root, lock_seconds=0) as store:
        assert store.load(LINEAGE) is None


def test_what_is_damaged_while_the_app_works_is_written_anew(root: Path) -> None:
    first, second, third = history(3)
    work(root, first)
    work(root, second)
    folder = root / f"{LINEAGE:016x}"
    with FolderStore(root) as store:
        store.load(LINEAGE)
        store.prepare(third)  # from then on the one before is read from its files
        for changed in folder.glob("change-*"):
            changed.write_bytes(bytes(changed.stat().st_size))
        store.save(second)
    assert image(load(root)) == image(second)


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


def test_changes_of_format_4_are_followed_by_a_whole_model(root: Path) -> None:
    first, second, third, fourth = history(4)
    work(root, first)
    folder = root / f"{LINEAGE:016x}"
    manifest = unseal((folder / MANIFEST).read_bytes())
    (whole,) = folder.glob("model-*")
    data = np.frombuffer(whole.read_bytes(), np.uint8)
    chain = []
    for state in (second, third):
        chunks = to_chunks(named(state.model))
        new = np.frombuffer(b"".join(chunks), np.uint8)
        places = range(0, new.size, 1 << 20)
        pairs = ((data[at : at + (1 << 20)], new[at : at + (1 << 20)]) for at in places)
        blocks = list(pack_changes(pairs))
        sizes = [min(1 << 20, new.size - at) for at in places]
        change = {
            DATA: np.frombuffer(b"".join(blocks), np.uint8),
            SIZES: np.array([sizes, [len(block) for block in blocks]]),
        }
        chain.append(write_arrays(folder, "change", change).to_json())
        data = new
    manifest["files"] |= {"changes": chain, "checksum": checksum(chunks)}
    state = replace(third, order=first.order, version=first.version)
    (folder / MANIFEST).write_bytes(seal({**manifest, "format": 4}))
    assert image(load(root)) == image(state)
    # What is not written anew stays as it is, in the format that it has.
    work(root, replace(state, settled=(1,)))
    assert unseal((folder / MANIFEST).read_bytes())["format"] == 4
    assert image(load(root)) == image(replace(state, settled=(1,)))
    work(root, fourth)
    assert image(load(root)) == image(fourth)
    kinds = sorted(path.name.partition("-")[0] for path in folder.glob("*.safetensors"))
    assert kinds == ["memory", "model"]


def test_a_state_of_format_5_goes_on(root: Path) -> None:
    """It was written by the release that came with it, and is never written again."""
    shutil.copytree(Path(__file__).parent / "kept" / "state-5", root)
    root.chmod(0o700)
    manifest = unseal((root / f"{LINEAGE:016x}" / MANIFEST).read_bytes())
    assert manifest["format"] == 5
    assert not list(root.glob("*/model-*"))
    weight = np.arange(16384, dtype=np.float32).reshape(128, 128)
    state = DeviceState(bytes(16), LINEAGE, (1, 9), 9, model={"weight": weight + 9})
    assert image(load(root)) == image(state)
    work(root, replace(state, version=10))
    assert image(load(root)) == image(replace(state, version=10))


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
