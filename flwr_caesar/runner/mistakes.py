"""What a mistake in a configuration is, in one line that names the key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from flwr_caesar.tasks.errors import ConfigError

GROUPS = (
    "strategy",
    "inner",
    "data",
    "model",
    "federation",
    "profile",
    "experiment",
)


def first_line(error: Exception) -> str:
    """Return the first line of an error that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), "?").strip()


def keys(config: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of a configuration, without Hydra's own."""
    found = []
    for name, value in config.items():
        if not prefix and name == "hydra":
            continue
        found.append(prefix + str(name))
        if isinstance(value, dict):
            found += keys(value, f"{prefix}{name}.")
    return found


def _common_settings() -> set[str]:
    """Return what every strategy takes, and no file of the group lists."""
    from flwr_caesar.runner.registry import COMMON

    return COMMON


def explain(
    error: Exception,
    overrides: Sequence[str],
    known: Sequence[str],
    groups: Sequence[str],
) -> ConfigError:
    """Turn one of Hydra's errors into one that names the key."""
    parsing = getattr(error, "override", None)
    if parsing is not None:
        return ConfigError(str(parsing), f"cannot be read: {first_line(error)}")
    message = " ".join(
        str(part) for part in (error, error.__cause__) if part is not None
    )
    match = re.search(r"Could not override '([^']+)'", message)
    if match is None:
        return ConfigError(" ".join(overrides) or "configuration", first_line(error))
    key = match.group(1)
    if key in known:
        return ConfigError(key, first_line(error.__cause__ or error))  # type: ignore[arg-type]
    group = key.partition(".")[0]
    text = next((o for o in overrides if o.startswith(f"{key}=")), f"{key}=…")
    if group in GROUPS and not groups and group != "federation":
        return ConfigError(
            key, f"an app of your own sets its {group} in its code or run_config.KEY"
        )
    if group == "strategy" and key.partition(".")[2] in _common_settings():
        return ConfigError(
            key, f"is not in this strategy's file, so add it: write +{text}"
        )
    if group in GROUPS and "." in key:
        own = [k for k in known if k.startswith(f"{group}.") and k.count(".") == 1]
        return ConfigError(
            key, f"no such setting in this {group}; it has: {', '.join(own)}"
        )
    nearest = get_close_matches(key, [*known, *GROUPS], n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ConfigError(key, f"no such key{hint}")
