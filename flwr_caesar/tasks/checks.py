"""Reading settings out of a nested mapping, with errors that name the key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .errors import ConfigError


def get_choice(
    config: Mapping[str, Any], path: str, key: str, choices: Collection[str]
) -> str:
    """Return ``config[key]``, which must be one of `choices`."""
    value = _get(config, path, key)
    if value not in choices:
        raise ConfigError(
            f"{path}.{key}", f"must be one of {', '.join(choices)}, not {value!r}"
        )
    return str(value)


def get_int(config: Mapping[str, Any], path: str, key: str, minimum: int = 1) -> int:
    """Return ``config[key]``, which must be a whole number of at least `minimum`."""
    value = _get(config, path, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(
            f"{path}.{key}",
            f"must be a whole number of at least {minimum}, not {value!r}",
        )
    return value


def get_text(config: Mapping[str, Any], path: str, key: str) -> str:
    """Return ``config[key]``, which must be a text that is not empty."""
    value = _get(config, path, key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{path}.{key}", f"must be a text, not {value!r}")
    return value


def get_shape(config: Mapping[str, Any], path: str, key: str) -> tuple[int, ...]:
    """Return ``config[key]``, which must be a list of positive whole numbers."""
    value = _get(config, path, key)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(n, int) and n > 0 for n in value):
        raise ConfigError(
            f"{path}.{key}", f"must be a list of positive numbers, not {value!r}"
        )
    return tuple(value)


def _get(config: Mapping[str, Any], path: str, key: str) -> Any:
    if config.get(key) is None:
        raise ConfigError(f"{path}.{key}", "is missing")
    return config[key]
