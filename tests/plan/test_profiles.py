"""Profiles say what the code accepts, shares are met, and mistakes are named."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import flwr_caesar.conf
from flwr_caesar.plan import PlanError, Profile, VirtualClock
from flwr_caesar.plan.profiles import apportion, assign

CONF = Path(flwr_caesar.conf.__file__).parent / "profile"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))

GOOD = {
    "name": "two",
    "devices": {
        "slow": {
            "share": 1,
            "utilisation": 0.5,
            "modes": {"a": {"peak_flops": 1e9}, "b": {"peak_flops": 5e8, "share": 3}},
            "links": {"wire": 1},
        },
        "fast": {
            "share": 3,
            "utilisation": 1,
            "modes": {"a": {"peak_flops": 4e9}},
            "links": {"wire": 1, "air": 1},
        },
    },
    "links": {
        "wire": {"down_bps": 8e6, "up_bps": 4e6},
        "air": {
            "down_bps": 1e6,
            "up_bps": 1e6,
            "spread": 0.5,
            "drift": 0.4,
            "persistence": 0.7,
        },
    },
}


def load(name: str):
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=True)


def test_the_files_are_there() -> None:
    assert NAMES == ["jetson40", "mixed", "none", "phones", "uniform"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_every_file_is_a_profile(name: str) -> None:
    profile = Profile.of(load(name))
    assert profile is not None
    assert profile.name == name
    clock = VirtualClock(profile, 60, seed=1)
    times = clock.times(3, range(60), bytes_down=8e5, bytes_up=8e5, samples=320)
    assert ((times.finish > 0.1) & (times.finish < 600)).all()
    assert (times.waiting.max() > 0) == (name != "uniform")


def test_none_is_no_clock() -> None:
    assert Profile.of(load("none")) is None
    assert Profile.of(None) is None


def test_forty_jetsons_are_ten_of_each() -> None:
    profile = Profile.of(load("jetson40"))
    assert np.bincount(assign(profile, 40, seed=5).classes).tolist() == [10] * 4


def test_mixed_is_two_jetsons_to_a_phone() -> None:
    profile = Profile.of(load("mixed"))
    counts = np.bincount(assign(profile, 120, seed=5).classes)
    assert [counts[:4].sum(), counts[4:].sum()] == [80, 40]


def test_apportion_by_hand() -> None:
    assert apportion([1, 1, 1], 10) == [4, 3, 3]
    assert apportion([0.5, 0.3, 0.2], 7) == [4, 2, 1]
    assert apportion([0, 1], 3) == [0, 3]
    assert apportion([5, 3], 0) == [0, 0]


def test_a_fleet_may_be_one_device() -> None:
    found = assign(Profile.of(load("jetson40")), 1, seed=0)
    assert len(found.classes) == len(found.links) == 1


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda s: sum(s) > 0.1),
    st.integers(0, 500),
)
def test_apportion_misses_no_share_by_a_device(shares, count) -> None:
    sizes = apportion(shares, count)
    exact = np.array(shares) * count / sum(shares)
    assert sum(sizes) == count
    assert (np.abs(sizes - exact) < 1 + 1e-9).all()


def test_links_follow_the_class() -> None:
    profile = Profile.of(GOOD)
    found = assign(profile, 16, seed=0)
    assert np.bincount(found.classes).tolist() == [4, 12]
    assert set(found.links[found.classes == 0]) == {0}
    assert np.bincount(found.links[found.classes == 1]).tolist() == [6, 6]


def broken(path: str, value):
    config = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    table = config
    for key in parents:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", None),
        ("name", 3),
        ("nonsense", 1),
        ("links", None),
        ("links", {}),
        ("devices", {}),
        ("devices", [1]),
        ("devices/slow", 3),
        ("devices/slow/share", -1),
        ("devices/slow/share", "many"),
        ("devices/slow/share", True),
        ("devices/slow/utilisation", 0),
        ("devices/slow/utilisation", 1.5),
        ("devices/slow/modes", {}),
        ("devices/slow/modes/a/peak_flops", None),
        ("devices/slow/modes/a/peak_flops", float("inf")),
        ("devices/slow/modes/a/watts", 15),
        ("devices/slow/links", 3),
        ("devices/slow/links/wire", -1),
        ("devices/slow/links/lte", 1),
        ("devices/slow/speed", 1),
        ("links/air/down_bps", 0),
        ("links/air/persistence", 1),
        ("links/air/drift", -0.1),
        ("links/air/latency", 0.1),
        ("mode_rounds", 0),
        ("mode_rounds", 1.5),
        ("flops_per_sample", 0),
    ],
)
def test_a_mistake_is_named(path: str, value) -> None:
    with pytest.raises(PlanError) as caught:
        Profile.of(broken(path, value))
    assert path.split("/")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_share_at_all() -> None:
    config = broken("devices/slow/share", 0)
    config["devices"]["fast"]["share"] = 0
    with pytest.raises(PlanError, match="share"):
        Profile.of(config)
    with pytest.raises(PlanError, match=r"slow\.links"):
        Profile.of(broken("devices/slow/links/wire", 0))
    modes = broken("devices/fast/modes/a/share", 0)
    with pytest.raises(PlanError, match="fast"):
        Profile.of(modes)
    with pytest.raises(PlanError):
        assign(Profile.of(GOOD), 0, seed=0)
