"""A Flower app of the user's own: its configuration, read and checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr_caesar.runner.config import RULES, check_ray_address
from flwr_caesar.runner.ray_needs import check_ray
from flwr_caesar.tasks.errors import ConfigError

APP_CONFIG = "app"
_KEY = "app="
_ROUNDS = "num-server-rounds"
_GIVEN = "run_config."
_RULES = ("num_supernodes", "client_cpus", "client_gpus")


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether a command is about an app of the user's own."""
    return any(text.startswith(_KEY) for text in arguments)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the app's own keys marked as new ones, for Hydra."""
    return [f"+{text}" if text.startswith(_GIVEN) else text for text in arguments]


def validate_app(spec: Mapping[str, Any]) -> None:
    """Refuse a configuration that could not run, before anything is started.

    Raises
    ------
    ConfigError
        Naming the first setting that is wrong, or the package that is missing.
    """
    declared = app_config(spec)
    for key in spec["run_config"]:
        if key not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise ConfigError(f"run_config.{key}", f"the app's keys are: {known}")
    if spec["rounds"] is not None:
        rule = RULES["rounds"]
        if not rule.accepts(spec["rounds"]):
            raise ConfigError("rounds", f"must be {rule.expected}")
        if _ROUNDS not in declared:
            raise ConfigError(
                "rounds",
                f"the app's pyproject.toml has no {_ROUNDS} in [tool.flwr.app.config]: "
                "set its own key by run_config.KEY, or add that one",
            )
    federation = spec["federation"]
    if federation["kind"] not in ("simulation", "inline", "supernodes"):
        raise ConfigError("federation.kind", "must be simulation, inline or supernodes")
    for name in _RULES:
        rule = RULES[f"federation.{name}"]
        if not rule.accepts(federation[name]):
            raise ConfigError(
                f"federation.{name}",
                f"must be {rule.expected}, not {federation[name]!r}",
            )
    check_ray_address(spec)
    check_ray(federation)


def app_config(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that an app declares, dotted, with their defaults.

    Raises
    ------
    ConfigError
        If there is no Flower app in that folder.
    """
    return _flat(_app_table(spec).get("config", {}))


def components(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an app's ClientApp and ServerApp are, each ``"module:name"``.

    Raises
    ------
    ConfigError
        If the app does not say so.
    """
    named = _app_table(spec)["components"]
    for part in ("clientapp", "serverapp"):
        if not isinstance(named.get(part), str):
            raise ConfigError("app", f"its pyproject.toml names no {part}")
    return named["clientapp"], named["serverapp"]


def _app_table(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an app's pyproject.toml has under ``tool.flwr.app``."""
    folder = Path(str(spec["app"]))
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            "app",
            f"{file}: {error.strerror or error}; name the folder of a Flower app, or "
            f"make one: flwr-caesar new {folder.name or 'my-app'}",
        ) from None
    except ValueError as error:
        raise ConfigError("app", f"{file} is not valid TOML: {error}") from None
    app: Any = project
    for part in ("tool", "flwr", "app"):
        app = app.get(part) if isinstance(app, dict) else None
    if not isinstance(app, dict) or not isinstance(app.get("components"), dict):
        raise ConfigError("app", f"{file} has no [tool.flwr.app.components]")
    return app


def rounds_of(spec: Mapping[str, Any]) -> int | None:
    """Return how many rounds there will be, if the app says so where it should."""
    rounds = spec["rounds"] or app_config(spec).get(_ROUNDS)
    return rounds if isinstance(rounds, int) else None


def run_config(spec: Mapping[str, Any]) -> str:
    """Return what the app's configuration is replaced by, as TOML."""
    # JSON's texts, numbers and truth values are also TOML's.
    return "".join(
        f"{json.dumps(key)} = {json.dumps(value)}\n"
        for key, value in _set_anew(spec).items()
    )


def whole_run_config(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the app's whole configuration, with what was set anew."""
    return {**app_config(spec), **_set_anew(spec)}


def _set_anew(spec: Mapping[str, Any]) -> dict[str, Any]:
    values = _flat(spec["run_config"])
    if spec["rounds"] is not None:
        values[_ROUNDS] = spec["rounds"]
    return values


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
