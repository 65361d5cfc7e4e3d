"""flwr-datasets does the work on small data of the hub's form; nothing is loaded."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.tasks import ConfigError, hub, load_partition, load_test
from flwr_caesar.tasks.text import encode_text

datasets = pytest.importorskip("datasets")
pytest.importorskip("flwr_datasets")
CHARACTERS = "abcdefghij"


def cifar10():
    rng = np.random.default_rng(0)
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(num_classes=10),
        }
    )

    def split(n):
        pixels = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(n) % 256
        rows = {"img": list(pixels), "label": list(np.arange(n) % 10)}
        return datasets.Dataset.from_dict(rows, features=features)

    return datasets.DatasetDict(train=split(200), test=split(40))


def femnist():
    rng = np.random.default_rng(0)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "writer_id": datasets.Value("string"),
            "hsf_id": datasets.Value("int64"),
            "character": datasets.ClassLabel(num_classes=62),
        }
    )
    n = 180
    rows = {
        "image": list(rng.integers(0, 256, (n, 28, 28), np.uint8)),
        "writer_id": [f"f{i % 6:04d}_14" for i in range(n)],
        "hsf_id": [0] * n,
        "character": [i % 6 for i in range(n)],
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(train=table)


def shakespeare():
    n = 120
    rows = {
        "character_id": [f"PLAY_{i % 4}" for i in range(n)],
        "x": [CHARACTERS[i % 4] * 77 + f"{i:03d}" for i in range(n)],
        "y": [CHARACTERS[i % 4] for i in range(n)],
    }
    return datasets.DatasetDict(train=datasets.Dataset.from_dict(rows))


@pytest.fixture(autouse=True)
def _small_hub(monkeypatch):
    known = {
        "uoft-cs/cifar10": cifar10,
        "flwrlabs/femnist": femnist,
        "flwrlabs/shakespeare": shakespeare,
    }
    monkeypatch.setattr("datasets.load_dataset", lambda path, name: known[path]())
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    for cached in (hub._federated, hub.load_hub_partition, hub.load_hub_test):
        cached.cache_clear()


def config(name: str, kind: str, *, test_size: int = 20, alpha: float = 0.5):
    return {
        "name": name,
        "batch_size": 4,
        "test_size": test_size,
        "partition": {"kind": kind, "alpha": alpha},
    }


ALL = [
    (name, kind)
    for name in ("cifar10", "femnist", "shakespeare")
    for kind in ("iid", "dirichlet", "natural")
    if (name, kind) != ("cifar10", "natural")
]
DEVICES = {"cifar10": 5, "femnist": 6, "shakespeare": 4}
TRAIN = {"cifar10": 200, "femnist": 160, "shakespeare": 100}


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_every_example_is_in_the_test_or_in_one_partition(name, kind):
    cfg, devices = config(name, kind, alpha=5.0), DEVICES[name]
    parts = [load_partition(cfg, i, devices, seed=3) for i in range(devices)]
    test = load_test(cfg)
    assert sum(map(len, parts)) == TRAIN[name]
    assert len(test) == 20
    rows = [row.tobytes() for part in [*parts, test] for row in part.x]
    assert len(set(rows)) == len(rows) == TRAIN[name] + 20


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_the_seed_names_the_partition_and_not_the_test(name, kind):
    cfg, devices = config(name, kind, alpha=5.0), DEVICES[name]
    first, test = load_partition(cfg, 1, devices, seed=3), load_test(cfg)
    for cached in (hub._federated, hub.load_hub_partition, hub.load_hub_test):
        cached.cache_clear()
    again = load_partition(cfg, 1, devices, seed=3)
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.y, again.y)
    assert np.array_equal(test.x, load_test(cfg).x)
    other = load_partition(cfg, 1, devices, seed=4)
    assert not np.array_equal(first.x, other.x)


def test_cifar10_is_channels_first_and_standardised():
    part = load_partition(config("cifar10", "iid"), 0, 5, seed=0)
    assert part.x.shape == (40, 3, 32, 32)
    assert part.x.dtype == np.float32
    pixels = part.x * np.reshape(np.float32([0.2470, 0.2435, 0.2616]), (3, 1, 1))
    pixels += np.reshape(np.float32([0.4914, 0.4822, 0.4465]), (3, 1, 1))
    whole = {np.asarray(image).tobytes() for image in cifar10()["train"]["img"]}
    for image in np.rint(pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1):
        assert image.tobytes() in whole


def test_grey_images_have_one_channel():
    part = load_partition(config("femnist", "iid"), 0, 5, seed=0)
    assert part.x.shape[1:] == (1, 28, 28)
    assert part.x.min() >= -1
    assert part.x.max() <= 1


@pytest.mark.parametrize("name", ["femnist", "shakespeare"])
def test_a_natural_partition_has_one_owner(name):
    for i in range(DEVICES[name]):
        part = load_partition(config(name, "natural"), i, DEVICES[name], seed=0)
        assert len(set(part.y.tolist())) == 1


def test_fewer_devices_than_owners_take_the_first_owners():
    few = load_partition(config("femnist", "natural"), 2, 3, seed=0)
    all_ = load_partition(config("femnist", "natural"), 2, 6, seed=0)
    assert np.array_equal(few.x, all_.x)


def test_text_becomes_character_codes():
    part = load_partition(config("shakespeare", "natural"), 1, 4, seed=0)
    assert part.x.shape[1:] == (80,)
    assert part.x.dtype == part.y.dtype == np.int64
    assert set(part.y) == {encode_text(["b"], 1)[0, 0]}


@pytest.mark.parametrize(
    ("key", "cfg", "devices"),
    [
        ("federation.num_supernodes", config("femnist", "natural"), 7),
        ("data.partition.alpha", config("cifar10", "dirichlet", alpha=0.001), 20),
        ("data.partition.kind", config("cifar10", "natural"), 5),
        ("data.test_size", config("cifar10", "iid", test_size=41), 5),
        ("data.test_size", config("femnist", "iid", test_size=171), 5),
    ],
)
@pytest.mark.filterwarnings("ignore:The specified min_partition_size")
def test_a_bad_value_is_an_error_that_names_its_key(key, cfg, devices):
    with pytest.raises(ConfigError) as caught:
        load_partition(cfg, 0, devices, seed=0)
    assert caught.value.key == key


def test_a_failed_download_is_an_error_of_the_name(monkeypatch):
    def fail(path, name):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(ConfigError, match=r"data\.name: cifar10 cannot be loaded"):
        load_test(config("cifar10", "iid"))
