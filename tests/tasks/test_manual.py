from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.tasks import ConfigError, load_partition, load_test, manual

pytest.importorskip("pydoc_data.topics")

DATA = {
    "name": "pydoc",
    "batch_size": 16,
    "test_size": 300,
    "partition": {"kind": "natural"},
}
IID = {**DATA, "partition": {"kind": "iid"}}


def test_each_position_is_followed_by_the_next_character():
    part = load_partition(DATA, 0, 10, seed=0)
    assert part.x.shape == part.y.shape == (len(part), 80)
    assert part.x.dtype == part.y.dtype == np.int64
    assert np.array_equal(part.x[:, 1:], part.y[:, :-1])
    assert 0 <= part.x.min() <= part.x.max() < 96


def test_a_device_has_one_topic_and_the_first_most_of_it():
    parts = [load_partition(DATA, i, 30, seed=0) for i in range(30)]
    sizes = [len(part) for part in parts]
    assert min(sizes) >= 10
    assert sizes[0] == max(sizes)
    owned = np.concatenate(manual.partition(manual.DataConfig.of(DATA), 30, 0))
    assert len(np.unique(owned)) == sum(sizes)


def test_every_window_is_in_the_test_or_in_one_iid_partition():
    parts = [load_partition(IID, i, 7, seed=1) for i in range(7)]
    test = load_test(DATA)
    assert len(test) == 300
    train, _, sizes = manual.load_split(300)
    assert sum(map(len, parts)) == len(train) == sum(sizes)
    everything = np.concatenate([part.x for part in parts])
    assert sorted(map(bytes, everything)) == sorted(map(bytes, train.x))


def test_nearly_no_test_example_was_seen_in_training():
    train, test, _ = manual.load_split(600)
    seen = set(map(bytes, train.x))
    assert sum(bytes(x) in seen for x in test.x) <= 3


@pytest.mark.parametrize("cfg", [DATA, IID])
def test_more_devices_than_text_is_an_error(cfg):
    with pytest.raises(ConfigError) as caught:
        load_partition(cfg, 0, 10_000, seed=0)
    assert caught.value.key == "federation.num_supernodes"


def test_a_test_that_leaves_nothing_is_an_error():
    with pytest.raises(ConfigError) as caught:
        load_test({**DATA, "test_size": 10**6})
    assert caught.value.key == "data.test_size"


def test_text_has_no_labels_to_skew():
    with pytest.raises(ConfigError) as caught:
        load_test({**DATA, "partition": {"kind": "dirichlet", "alpha": 1.0}})
    assert caught.value.key == "data.partition.kind"
