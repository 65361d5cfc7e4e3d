from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.tasks import ConfigError, activity, data, load_partition, load_test

DATA = {
    "name": "activity",
    "batch_size": 32,
    "test_size": 900,
    "partition": {"kind": "natural"},
}
installed = pytest.mark.skipif(
    activity._file() is None, reason="seglearn is not installed"
)


@installed
def test_windows_are_shaped_and_standardised():
    part = load_partition(DATA, 0, 10, seed=0)
    assert part.x.shape == (len(part), 6, 128)
    assert part.x.dtype == np.float32
    assert part.y.dtype == np.int64
    train, test, _ = activity.load_split(900)
    assert np.abs(train.x.mean((0, 2))).max() < 0.05
    assert np.abs(train.x.std((0, 2)) - 1).max() < 0.05
    assert len(test) == 900
    assert set(test.y) == set(train.y) == set(range(7))


@installed
def test_a_person_a_device_and_everyone_in_the_test():
    parts = [load_partition(DATA, i, 10, seed=0) for i in range(10)]
    train, _, sizes = activity.load_split(900)
    assert sum(map(len, parts)) == len(train)
    assert [len(part) for part in parts] == list(sizes)
    assert all(len(set(part.y)) == 7 for part in parts)
    few = load_partition(DATA, 1, 3, seed=5)
    assert np.array_equal(few.x, parts[1].x)


@installed
@pytest.mark.parametrize("test_size", [7, 140, 900])
def test_no_sample_of_a_test_window_is_in_a_training_window(test_size):
    train, test, _ = activity.load_split(test_size)
    seen = {sample.tobytes() for window in train.x for sample in window.T}
    assert not any(s.tobytes() in seen for window in test.x for s in window.T)


@installed
@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_other_partitions_have_every_window_once(kind):
    cfg = {**DATA, "partition": {"kind": kind, "alpha": 0.3}}
    parts = [load_partition(cfg, i, 25, seed=1) for i in range(25)]
    everything = np.concatenate([part.x for part in parts])
    train, _, _ = activity.load_split(900)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, train.x))


@installed
@pytest.mark.parametrize(
    ("key", "changes", "devices"),
    [
        ("federation.num_supernodes", {}, 11),
        ("data.test_size", {"test_size": 3000}, 10),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(key, changes, devices):
    with pytest.raises(ConfigError) as caught:
        load_partition({**DATA, **changes}, 0, devices, seed=0)
    assert caught.value.key == key


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, no_copies):
    """No cached copy, and a file of the test's own."""
    path = tmp_path / "watch_dataset.npy"
    monkeypatch.setattr(activity, "_file", lambda: path if path.exists() else None)
    no_copies(activity._load, activity.load_split)
    return path


def test_a_missing_package_says_how_to_install_it(elsewhere):
    with pytest.raises(ConfigError, match=r"pip install 'flwr-caesar\[activity\]'"):
        load_test(DATA)
    assert "seglearn" in data.missing(DATA)


def test_another_file_is_not_unpickled(elsewhere):
    class Trap:
        def __reduce__(self):
            return exec, (f"open({str(elsewhere.parent / 'sprung')!r}, 'w')",)

    np.save(elsewhere, np.array(Trap(), object))
    with pytest.raises(ConfigError, match="not the file of seglearn"):
        load_test(DATA)
    assert not (elsewhere.parent / "sprung").exists()
