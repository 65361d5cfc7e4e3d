"""Composing a run's configuration, and refusing a bad one in a single line."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr_caesar.runner.mistakes import GROUPS, explain, first_line, keys
from flwr_caesar.runner.ray_needs import check_ray
from flwr_caesar.tasks.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

Spec = dict[str, Any]

CONFIG_MODULE = "flwr_caesar.conf"
CONFIG_NAME = "config"


@dataclass(frozen=True)
class Rule:
    """What a value must be: a type, a condition on it, and both in words."""

    expected: str
    accepts: Callable[[Any], bool]


def _number(accepts: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and accepts(value)

    return check


def _whole(minimum: int) -> Rule:
    def check(value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and value >= minimum

    return Rule(f"a whole number of at least {minimum}", check)


def _optional(rule: Rule) -> Rule:
    return Rule(f"null or {rule.expected}", lambda v: v is None or rule.accepts(v))


_POSITIVE = Rule("a number above 0", _number(lambda v: v > 0))
_NOT_NEGATIVE = Rule("a number of at least 0", _number(lambda v: v >= 0))
_PART = Rule("a number above 0 and at most 1", _number(lambda v: 0 < v <= 1))

# Settings whose meaning is the runner's; the data, model and strategy groups are also
# checked by what they configure.
RULES: dict[str, Rule] = {
    "seed": Rule(  # torch and NumPy take no larger one
        "a whole number of at least 0 and below 2**63",
        lambda v: _whole(0).accepts(v) and v < 1 << 63,
    ),
    "rounds": _whole(1),
    "target_accuracy": _optional(_PART),
    "connection": _optional(
        Rule("the name of a connection", lambda v: isinstance(v, str) and v != "")
    ),
    "resume": _optional(Rule("a run folder", lambda v: isinstance(v, str) and v != "")),
    "strategy.name": Rule("a name", lambda v: isinstance(v, str)),
    "inner.name": Rule("a name", lambda v: isinstance(v, str)),
    "train.lr": _POSITIVE,
    "train.momentum": Rule(
        "a number of at least 0 and below 1", _number(lambda v: 0 <= v < 1)
    ),
    "train.weight_decay": _NOT_NEGATIVE,
    "train.epochs": _whole(1),
    "train.steps": _optional(_whole(1)),
    "federation.kind": Rule(
        "simulation, inline or supernodes",
        lambda v: v in ("simulation", "inline", "supernodes"),
    ),
    "federation.num_supernodes": _whole(1),
    "federation.fraction_train": _PART,
    "federation.fraction_evaluate": Rule(
        "a number from 0 to 1", _number(lambda v: 0 <= v <= 1)
    ),
    "federation.absent": Rule(
        "a number of at least 0 and below 1", _number(lambda v: 0 <= v < 1)
    ),
    "federation.absence_rounds": _whole(1),
    "federation.client_cpus": _whole(1),
    "federation.client_gpus": _NOT_NEGATIVE,
}
_ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}")
_OPTIONAL_RULES: dict[str, Rule] = {
    "federation.ray_address": _optional(
        Rule(
            "HOST:PORT of a Ray cluster, as its head was started with",
            lambda v: isinstance(v, str) and _ADDRESS.fullmatch(v) is not None,
        )
    ),
    "strategy.density": _optional(_PART),
    "train.weight_bits": Rule(
        "null or a whole number from 1 to 8",
        lambda v: v is None or (_whole(1).accepts(v) and v <= 8),
    ),
    "train.weight_levels": Rule(
        "uniform or power_of_two", lambda v: v in ("uniform", "power_of_two")
    ),
}


def compose(
    overrides: Sequence[str],
    *,
    searchpath: str | None = None,
    name: str = CONFIG_NAME,
) -> Spec:
    """Compose and resolve the packaged configuration.

    Parameters
    ----------
    overrides : sequence of str
        As on the command line: ``["rounds=3", "strategy=topk"]``.
    searchpath : str, optional
        A further folder of configuration files.
    name : str
        Of the packaged configuration.

    Raises
    ------
    ConfigError
        If an override names no known key or choice, or cannot be parsed.
    """
    return resolve(_compose(overrides, searchpath, name))


def sweep_of(
    overrides: Sequence[str], *, searchpath: str | None = None
) -> dict[str, str] | None:
    """Return what an experiment itself sweeps over.

    Parameters
    ----------
    overrides, searchpath
        As in `compose`; no sweeps among them.

    Returns
    -------
    dict or None
        Values by key, as text; None unless ``hydra.mode`` says that it is a sweep.

    Raises
    ------
    ConfigError
        If there is no such experiment.
    """
    hydra = _compose(overrides, searchpath).hydra
    if hydra.mode is None or hydra.mode.name != "MULTIRUN":
        return None
    return {str(key): str(value) for key, value in (hydra.sweeper.params or {}).items()}


def sweep_folders(
    overrides: Sequence[str],
    number: int = 0,
    *,
    searchpath: str | None = None,
    name: str = CONFIG_NAME,
) -> tuple[Path, str]:
    """Return a sweep's folder, and in it that of its run `number`.

    Parameters
    ----------
    overrides, searchpath, name
        As in `compose`, Hydra's own among them.
    number : int
        Counted from 0.
    """
    numbered = [*overrides, f"hydra.job.num={number}"]
    sweep = _compose(numbered, searchpath, name).hydra.sweep
    return Path(str(sweep.dir)).resolve(), str(sweep.subdir)


def _compose(
    overrides: Sequence[str], searchpath: str | None, name: str = CONFIG_NAME
) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from .method_configs import use_method_configs

    use_method_configs()
    extra = [f"hydra.searchpath=[file://{searchpath}]"] if searchpath else []
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):

        def composed(some: Sequence[str]) -> DictConfig:
            return hydra_compose(name, [*some, *extra], return_hydra_config=True)

        try:
            return composed(overrides)
        except MissingConfigException as error:
            group, _, choice = (error.missing_cfg_file or "").rpartition("/")
            options = ", ".join(sorted(error.options or ()))
            if not options:
                raise ConfigError(group or "experiment", first_line(error)) from None
            raise ConfigError(
                group, f"no choice {choice!r}; there are: {options}"
            ) from None
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            groups = GROUPS if name == CONFIG_NAME else ()
            chosen = [o for o in overrides if o.partition("=")[0] in groups]
            known = keys(OmegaConf.to_container(composed(chosen)))
            raise explain(error, overrides, known, groups) from None


def resolve(config: Any) -> Spec:
    """Return a composed configuration as plain values, without Hydra's own part.

    Raises
    ------
    ConfigError
        If a value is missing or refers to one that does not exist.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain = OmegaConf.create(
        {k: v for k, v in OmegaConf.to_container(config).items() if k != "hydra"}  # type: ignore[union-attr]
    )
    try:
        spec = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            error.full_key or "configuration", first_line(error)
        ) from None
    return json.loads(json.dumps(spec))  # type: ignore[no-any-return]


def get(spec: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    value: Any = spec
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(key, "is missing")
        value = value[part]
    return value


def check_values(spec: Mapping[str, Any]) -> None:
    """Refuse a value of the wrong type or out of range.

    Raises
    ------
    ConfigError
        Naming the first setting that is wrong.
    """
    for key, rule in RULES.items():
        _check(key, get(spec, key), rule)
    for key, rule in _OPTIONAL_RULES.items():
        group, _, name = key.partition(".")
        if name in get(spec, group):
            _check(key, get(spec, key), rule)
    check_ray_address(spec)
    from flwr_caesar.tasks import DataConfig

    DataConfig.of(get(spec, "data"))


def check_ray_address(spec: Mapping[str, Any]) -> None:
    """Refuse a Ray cluster's address that is malformed, or that would not be used.

    Raises
    ------
    ConfigError
        If so; not if there is no such key, as in an older run.
    """
    key = "federation.ray_address"
    federation = spec["federation"]
    address = federation.get("ray_address")
    _check(key, address, _OPTIONAL_RULES[key])
    if address is not None and federation["kind"] != "simulation":
        raise ConfigError(key, "is for federation.kind=simulation only: leave it out")
    if address is not None and spec.get("connection") is not None:
        raise ConfigError(
            key, "give RAY_ADDRESS to the SuperLink of the connection instead"
        )


def validate(spec: Mapping[str, Any]) -> None:
    """Refuse a configuration that could not run, before anything is started.

    Raises
    ------
    ConfigError
        Naming the first setting that is wrong, or the package that is missing.
    """
    check_values(spec)
    _check_strategy(spec)
    if spec["connection"] is None:
        _check_packages(spec)
        _check_model(spec)
    else:
        _check_connection(spec["connection"])
    _check_data(spec)


def _check(key: str, value: Any, rule: Rule) -> None:
    if not rule.accepts(value):
        raise ConfigError(key, f"must be {rule.expected}, not {value!r}")


def _check_strategy(spec: Mapping[str, Any]) -> None:
    from flwr_caesar.runner.registry import build_strategy, read_profile

    read_profile(spec)
    strategy = spec["strategy"]
    corrected = strategy.get("control") or strategy.get("variant") == "local"
    if corrected and get(spec, "train.momentum"):
        raise ConfigError(
            "train.momentum",
            f"must be 0 with strategy={strategy['name']}, whose steps are plain SGD, "
            f"not {get(spec, 'train.momentum')}: add train.momentum=0",
        )
    logging.disable(logging.WARNING)  # built only to be checked: no comments on it
    try:
        build_strategy(spec, on_record=lambda record: None)
    finally:
        logging.disable(logging.NOTSET)


def _check_packages(spec: Mapping[str, Any]) -> None:
    from flwr_caesar.tasks.data import missing

    needed = [
        ("model.name", "torch", "torch", "training needs"),
    ]
    check_ray(get(spec, "federation"))
    if get(spec, "model.name") == "resnet18":
        needed.append(("model.name", "torchvision", "vision", "resnet18 needs"))
    for key, module, extra, why in needed:
        if find_spec(module) is None:
            raise ConfigError(
                key, f"{why} {module}: pip install 'flwr-caesar[{extra}]'"
            )
    if sentence := missing(spec["data"]):
        raise ConfigError("data.name", sentence)


def _check_model(spec: Mapping[str, Any]) -> None:
    """Build what the devices will build."""
    from flwr_caesar.tasks.models import build_model

    build_model(spec["model"], spec["seed"])


def _check_data(spec: Mapping[str, Any]) -> None:
    """Split the data as the devices will, where that downloads nothing."""
    from flwr_caesar.tasks.data import LOCAL, load_partition, missing

    count = get(spec, "federation.num_supernodes")
    if get(spec, "data.name") not in LOCAL or missing(spec["data"]):
        return  # with a connection, the devices' packages need not be here
    load_partition(spec["data"], 0, count, spec["seed"])


def _check_connection(name: str) -> None:
    """Look the name up in the user's Flower configuration, if there is one."""
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")
    file = home / "config.toml"
    if not file.is_file():
        return
    try:
        links = tomllib.loads(file.read_text(encoding="utf-8")).get("superlink", {})
    except ValueError as error:
        raise ConfigError("connection", f"{file} is not valid TOML: {error}") from None
    names = sorted(key for key, value in links.items() if isinstance(value, dict))
    if name not in names:
        known = ", ".join(names) or "none"
        raise ConfigError("connection", f"no {name!r} in {file}; there are: {known}")
