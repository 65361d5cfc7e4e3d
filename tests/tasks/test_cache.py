"""Arrays in the user's cache folder: made once, whole, and anew if damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flwr_caesar.tasks.cache import cached_arrays

ARRAYS = {"a": np.arange(6).reshape(2, 3), "b": np.array([1.5, 2.5], np.float32)}


def check(arrays):
    if arrays["a"].shape != (2, 3) or arrays["b"].dtype != np.float32:
        raise ValueError("other arrays")


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {name: array.copy() for name, array in ARRAYS.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flwr-caesar" / "key"


def get(make):
    return cached_arrays("key", ("a", "b"), make, check)


def test_arrays_are_made_once_and_then_mapped_read_only(folder):
    make = Maker()
    for arrays in (get(make), get(make)):
        for name, array in ARRAYS.items():
            assert np.array_equal(arrays[name], array)
            assert arrays[name].dtype == array.dtype
            assert not arrays[name].flags.writeable
    assert isinstance(arrays["a"], np.memmap)
    assert make.calls == 1
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other", "pickle", "gone"])
def test_a_damaged_copy_is_made_anew(folder, damage):
    make = Maker()
    get(make)
    path = folder / "a.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not an array")
    elif damage == "other":
        np.save(path, np.zeros(3))
    elif damage == "pickle":
        np.save(path, np.array([{}]))
    else:
        path.unlink()
    assert np.array_equal(get(make)["a"], ARRAYS["a"])
    assert make.calls == 2
    get(make)
    assert make.calls == 2


def test_a_folder_that_cannot_be_written_does_no_harm(folder):
    folder.parent.write_text("a file where the folder should be")
    assert np.array_equal(get(Maker())["a"], ARRAYS["a"])


def test_what_is_made_wrong_is_an_error_and_not_kept(folder):
    with pytest.raises(ValueError, match="other arrays"):
        get(lambda: {"a": np.zeros(3), "b": ARRAYS["b"]})
    assert not folder.exists()


def test_many_may_make_the_arrays_at_once(folder):
    make = Maker()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: get(make), range(32)))
    assert all(np.array_equal(arrays["a"], ARRAYS["a"]) for arrays in found)
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "b.npy"]
