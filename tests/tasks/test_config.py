from __future__ import annotations

import math

import pytest

from flwr_caesar.tasks import ConfigError, DataConfig


def test_a_valid_group_is_read(data_cfg):
    assert DataConfig.of(data_cfg) == DataConfig("mnist5k", "dirichlet", 0.3, 16, 1000)


def test_alpha_is_not_part_of_an_iid_partition(data_cfg):
    data_cfg["partition"] = {"kind": "iid", "alpha": "anything"}
    assert DataConfig.of(data_cfg).alpha == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.name", "mnist"),
        ("data.name", None),
        ("data.batch_size", 0),
        ("data.batch_size", 1.5),
        ("data.batch_size", True),
        ("data.test_size", -1),
        ("data.test_size", "many"),
        ("data.partition", "iid"),
        ("data.partition.kind", "shards"),
        ("data.partition.kind", "natural"),
        ("data.partition.alpha", 0),
        ("data.partition.alpha", -0.1),
        ("data.partition.alpha", math.nan),
        ("data.partition.alpha", math.inf),
        ("data.partition.alpha", "0.3"),
        ("data.partition.alpha", None),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(data_cfg, key, value):
    *groups, last = key.split(".")[1:]
    target = data_cfg
    for group in groups:
        target = target[group]
    target[last] = value
    with pytest.raises(ConfigError) as caught:
        DataConfig.of(data_cfg)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
    assert "\n" not in str(caught.value)


def test_natural_for_mnist5k_says_what_to_use(data_cfg):
    data_cfg["partition"]["kind"] = "natural"
    with pytest.raises(ConfigError, match=r"mnist5k has no natural.*iid or dirichlet"):
        DataConfig.of(data_cfg)
