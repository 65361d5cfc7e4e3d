from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.tasks import (
    ConfigError,
    data,
    fashion_mnist,
    load_partition,
    load_test,
)
from flwr_caesar.tasks.idx import read_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CONFIG = {
    "name": "fashion_mnist",
    "batch_size": 32,
    "test_size": 40,
    "folder": str(DEBIAN),
    "partition": {"kind": "dirichlet", "alpha": 0.3},
}
SMALL = {"train_images": 300, "train_labels": 300, "test_images": 50, "test_labels": 50}


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def small(tmp_path, monkeypatch, no_copies):
    """A folder with files of the data set's form, of a few images."""
    rng = np.random.default_rng(0)
    files = {
        key: (name, (SMALL[key], *shape[1:]))
        for key, (name, shape) in fashion_mnist._FILES.items()
    }
    monkeypatch.setattr(fashion_mnist, "_FILES", files)
    folder = tmp_path / "data"
    folder.mkdir()
    for key, (name, shape) in files.items():
        array = rng.integers(0, 10 if key.endswith("labels") else 256, shape, np.uint8)
        (folder / name).write_bytes(gzip.compress(idx(array), 1))
    no_copies(fashion_mnist._load, fashion_mnist._partition)
    return folder


def config(folder, **changes):
    return {**CONFIG, "folder": str(folder), **changes}


def stored(folder, key):
    name, shape = fashion_mnist._FILES[key]
    return read_idx(folder / name, shape)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_every_training_image_is_in_one_partition(small, kind):
    cfg = config(small, partition={"kind": kind, "alpha": 0.3})
    parts = [load_partition(cfg, i, 20, seed=1) for i in range(20)]
    assert min(map(len, parts)) >= 10
    pixels = np.concatenate([part.x for part in parts]) * 0.3530 + 0.2860
    back = np.rint(pixels * 255).astype(np.uint8)
    assert sorted(map(bytes, back)) == sorted(map(bytes, stored(small, "train_images")))
    labels = np.concatenate([part.y for part in parts])
    assert sorted(labels) == sorted(stored(small, "train_labels"))


def test_the_test_is_of_the_test_images_and_the_same_in_every_run(small):
    test = load_test(config(small))
    assert test.x.shape == (40, 1, 28, 28)
    assert test.x.dtype == np.float32
    assert test.y.dtype == np.int64
    assert np.array_equal(test.x, load_test(config(small)).x)
    whole = load_test(config(small, test_size=50))
    assert np.array_equal(whole.y, stored(small, "test_labels"))


def test_the_files_are_unpacked_once(small, monkeypatch):
    load_test(config(small))
    fashion_mnist._load.cache_clear()
    monkeypatch.setattr(fashion_mnist, "_read", lambda folder: pytest.fail("unpacked"))
    load_test(config(small))


def test_other_files_in_the_same_place_are_read_anew(small):
    before = load_test(config(small)).y
    name, _ = fashion_mnist._FILES["test_labels"]
    other = (stored(small, "test_labels") + np.uint8(1)) % np.uint8(10)
    (small / name).write_bytes(gzip.compress(idx(other), 1) + b"\0")
    fashion_mnist._load.cache_clear()
    assert np.array_equal(load_test(config(small)).y, (before + 1) % 10)


@pytest.mark.parametrize(
    "damage", ["cut", "crc", "plain", "short", "long", "shape", "dtype", "labels"]
)
def test_a_file_of_another_form_is_refused_by_name(small, damage):
    name, shape = fashion_mnist._FILES["test_labels"]
    labels = np.zeros(shape, np.uint8)
    content = {
        "short": gzip.compress(idx(labels)[:-1]),
        "long": gzip.compress(idx(labels) + b"\0" * 10_000_000),
        "shape": gzip.compress(idx(labels.reshape(5, 10))),
        "dtype": gzip.compress(b"\0\0\x09" + idx(labels)[3:]),
        "labels": gzip.compress(idx(labels + np.uint8(10))),
        "plain": idx(labels),
        "cut": gzip.compress(idx(labels))[:-9],
        "crc": gzip.compress(idx(labels))[:-8] + b"\0" * 8,
    }[damage]
    (small / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name) as caught:
        load_test(config(small))
    assert caught.value.key == "data.folder"
    assert "\n" not in str(caught.value)


def test_missing_files_say_what_to_install(tmp_path):
    cfg = config(tmp_path)
    with pytest.raises(ConfigError, match="apt-get install dataset-fashion-mnist"):
        load_partition(cfg, 0, 10, seed=0)
    assert "apt-get install dataset-fashion-mnist" in data.missing(cfg)


@pytest.mark.parametrize(
    ("key", "changes", "devices"),
    [
        ("data.test_size", {"test_size": 51}, 10),
        ("data.folder", {"folder": ""}, 10),
        ("data.folder", {"folder": 3}, 10),
        ("federation.num_supernodes", {}, 301),
        ("data.partition.kind", {"partition": {"kind": "natural"}}, 10),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(small, key, changes, devices):
    cfg = {**config(small), **changes}
    load = load_test if "test_size" in changes else load_partition
    where = () if "test_size" in changes else (0, devices, 0)
    with pytest.raises(ConfigError) as caught:
        load(cfg, *where)
    assert caught.value.key == key


@pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_debians_files_are_the_data_set():
    test = load_test({**CONFIG, "test_size": 10_000})
    assert np.bincount(test.y).tolist() == [1000] * 10
    part = load_partition({**CONFIG, "partition": {"kind": "iid"}}, 0, 10, seed=0)
    assert len(part) == 6000
    assert abs(float(part.x.mean())) < 0.02
    assert abs(float(part.x.std()) - 1) < 0.02
