"""From the groups of a configuration to a strategy object and its clock."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Set
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr_caesar.records import PhaseProgress, RoundRecord
from flwr_caesar.tasks.errors import ConfigError

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from flwr_caesar.plan import VirtualClock
    from flwr_caesar.plan.profiles import Profile

# Name of an inner strategy: class in `flwr.serverapp.strategy`. The other keys of the
# group are its keyword arguments.
INNER = {
    "fedavg": "FedAvg",
    "fedavgm": "FedAvgM",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "fedmedian": "FedMedian",
    "fedtrimmedavg": "FedTrimmedAvg",
}
# Options of every strategy that a configuration may set.
COMMON = {"deadline", "quorum", "max_residual_age", "max_failed_rounds", "guards"}
_APPS = {"arrayrecord_key", "configrecord_key"}


def build_strategy(
    spec: Mapping[str, Any],
    *,
    on_record: Callable[[RoundRecord], None],
    on_progress: Callable[[PhaseProgress], None] | None = None,
    checkpoint: Path | None = None,
    clock: VirtualClock | None = None,
) -> Strategy:
    """Build what ``strategy`` names, around the Flower strategy that ``inner`` names.

    Parameters
    ----------
    spec : mapping
        A whole configuration, resolved.
    on_record : callable
        Called with the record of each phase of each round.
    on_progress : callable, optional
        Called with how far a phase is.
    checkpoint : Path, optional
        Folder from which the strategy goes on, and which it writes.
    clock : VirtualClock, optional
        Charges the devices; see `build_clock`.

    Raises
    ------
    ConfigError
        If there is no such strategy, or it refuses a setting.
    """
    from flwr_caesar.methods import get_method
    from flwr_caesar.plan import Presence

    options: dict[str, Any] = {"on_record": on_record}
    if on_progress is not None:
        options["on_progress"] = on_progress
    if checkpoint is not None:
        options["checkpoint"] = checkpoint
    if clock is not None:
        options["clock"] = clock
    if spec["federation"]["absent"]:
        options["presence"] = Presence(
            spec["federation"]["absent"],
            spec["federation"]["absence_rounds"],
            spec["seed"],
        )
    try:
        method = get_method(spec["strategy"]["name"])
    except LookupError as error:
        raise ConfigError("strategy.name", str(error)) from None
    return _build(
        "strategy",
        {**method.settings, **spec["strategy"]},
        method.load_strategy(),
        (_build_inner(spec),),
        options,
        common=COMMON,
    )


def build_clock(
    spec: Mapping[str, Any], flops_per_sample: Callable[[], float]
) -> VirtualClock | None:
    """Build the virtual clock of the profile.

    Parameters
    ----------
    spec : mapping
        A whole configuration, resolved.
    flops_per_sample : callable
        Returns the operations of training the model on one sample once; called if the
        profile does not fix them.

    Returns
    -------
    VirtualClock or None
        None without a profile: times are measured.
    """
    from flwr_caesar.plan import VirtualClock

    profile = read_profile(spec)
    if profile is None:
        return None
    flops = profile.flops_per_sample or flops_per_sample()
    return VirtualClock(
        profile,
        spec["federation"]["num_supernodes"],
        seed=spec["seed"],
        flops_per_sample=flops,
    )


def read_profile(spec: Mapping[str, Any]) -> Profile | None:
    """Return the checked ``profile`` group; None if it is ``none``.

    Raises
    ------
    ConfigError
        If a setting of it cannot be used.
    """
    from flwr_caesar.plan import PlanError, Profile

    try:
        return Profile.of(spec["profile"])
    except PlanError as error:
        key, _, message = str(error).partition(" ")
        raise ConfigError(key.rstrip(":"), message) from None


def _build_inner(spec: Mapping[str, Any]) -> Strategy:
    federation = spec["federation"]
    sampling = {
        "fraction_train": federation["fraction_train"],
        "fraction_evaluate": federation["fraction_evaluate"],
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1,
        "min_available_nodes": federation["num_supernodes"],
    }
    name = spec["inner"]["name"]
    if name not in INNER:
        raise ConfigError(
            "inner.name", f"no strategy {name!r}; there are: {', '.join(INNER)}"
        )
    factory = getattr(import_module("flwr.serverapp.strategy"), INNER[name])
    return _build("inner", spec["inner"], factory, (), sampling)


def _build(
    group: str,
    settings: Mapping[str, Any],
    factory: Callable[..., Strategy],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
    *,
    common: Set[str] = frozenset(),
) -> Strategy:
    """Call what ``name`` stands for with the group's other settings."""
    own = {key: value for key, value in settings.items() if key != "name"}
    name = settings["name"]
    known = _settings(factory, options) | common
    for key in own:
        if key not in known:
            choices = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"{group}.{key}", f"{name} has no such setting; it has: {choices}"
            )
        if not _accepts(inspect.signature(factory).parameters.get(key), own[key]):
            raise ConfigError(f"{group}.{key}", f"must be a number, not {own[key]!r}")
    try:
        strategy: Strategy = factory(*arguments, **own, **options)
    except (TypeError, ValueError) as error:
        named = [key for key in own if re.search(rf"\b{key}\b", str(error))]
        raise ConfigError(
            f"{group}.{named[0]}" if named else group, str(error)
        ) from None
    return strategy


def _accepts(parameter: inspect.Parameter | None, value: object) -> bool:
    """Whether a value is a number where one is needed, or a word where one may be."""
    if parameter is None or isinstance(value, (int, float)):
        return True
    if isinstance(parameter.default, float):
        return False
    annotation = str(parameter.annotation)
    if isinstance(value, str) and "str" in annotation:
        return True
    return value is None or "float" not in annotation


def _settings(factory: Callable[..., Strategy], options: Mapping[str, Any]) -> set[str]:
    """Return what the group can set of a class: what is neither built nor sampled."""
    return {
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
        and name != "strategy"
        and name not in options
        and name not in _APPS
        and "Callable" not in str(parameter.annotation)
    }
