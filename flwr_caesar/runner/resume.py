"""Going on with a run: what may be set anew, and what must be there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flwr_caesar.results.files import ROUNDS, SUMMARY
from flwr_caesar.runner.config import Spec, resolve
from flwr_caesar.runner.folder import (
    CHECKPOINT,
    CONFIG,
    configurations,
)
from flwr_caesar.runner.text import whole_rows
from flwr_caesar.sync.ledger import DATABASE
from flwr_caesar.tasks.errors import ConfigError

# What the rounds before do not depend on. Everything else would make of one folder two
# experiments: it is refused.
MAY_CHANGE = (
    "rounds",
    "target_accuracy",
    "connection",
    "federation.fraction_train",
    "federation.fraction_evaluate",
    "federation.client_cpus",
    "federation.client_gpus",
    "federation.ray_address",
    "inner.*",
    "strategy.deadline",
    "strategy.quorum",
)
_IS_THE_RUN = ("inner.name",)
_OPTIONAL = ("strategy.deadline", "strategy.quorum")
_MISSING = "\0missing"


def resumed(folder: Path, settings: Sequence[str]) -> Spec:
    """Return the configuration with which to go on with a run.

    Parameters
    ----------
    folder : Path
        The run folder; the settings of its latest segment hold on.
    settings : sequence of str
        ``key=value`` to set anew, see `MAY_CHANGE`.

    Raises
    ------
    ConfigError
        If there is no run to go on with, or a setting cannot be changed.
    """
    known = configurations(folder)
    if not known:
        raise ConfigError("resume", f"{folder} is no run folder: it has no {CONFIG}")
    spec = _load(known[-1])
    for text in settings:
        key, equals, _ = text.removeprefix("+").partition("=")
        if not equals or key.startswith(("-", "~")):
            raise ConfigError(text, "is no setting: write key=value")
        _set(spec, key, text.removeprefix("+"))
    OmegaConf.update(spec, "resume", str(folder))
    return resolve(spec)


def require_to_go_on(folder: Path, spec: Mapping[str, Any]) -> None:
    """Require that a run can go on: it has a checkpoint, and no more rounds than asked.

    Parameters
    ----------
    folder : Path
        The run folder.
    spec : mapping
        With which to go on; valid.

    Raises
    ------
    ConfigError
        If it would begin anew, or has more rounds already.
    """
    rows = whole_rows(folder / ROUNDS)
    done = max((int(row["round"]) for row in rows), default=0)
    if done and not (folder / CHECKPOINT / DATABASE).is_file():
        raise ConfigError(
            "resume",
            f"{folder} has {done} rounds of {spec['strategy']['name']} and no "
            "checkpoint to go on from; start a new run",
        )
    if spec["rounds"] < done:
        raise ConfigError(
            "rounds",
            f"{folder} already has {done} rounds: nothing was started; to go on, set "
            "more than that",
        )


def finished_rounds(folder: Path) -> int:
    """Return how many rounds a run that came to its end has; 0 if it did not."""
    try:
        return int(json.loads((folder / SUMMARY).read_text("utf-8"))["rounds"])
    except (OSError, ValueError, OverflowError, TypeError, KeyError):
        return 0


def _load(file: Path) -> DictConfig:
    try:
        config = OmegaConf.load(file)
        if not isinstance(config, DictConfig):
            raise ValueError("it holds no settings")
        return config
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("resume", f"{file} cannot be read: {reason}") from None


def _set(spec: DictConfig, key: str, text: str) -> None:
    """Set one value; one that the run has already may be repeated, whatever it is."""
    try:
        value = OmegaConf.select(OmegaConf.from_dotlist([text]), key)
        before = OmegaConf.select(spec, key, default=_MISSING)
    except (OmegaConfBaseException, YAMLError):
        raise ConfigError(key, f"cannot be read: {text}") from None
    if value == before:
        return
    may = any(fnmatchcase(key, pattern) for pattern in MAY_CHANGE)
    if not may or key in _IS_THE_RUN:
        was = "is not set" if before is _MISSING else f"is {before}"
        raise ConfigError(
            key,
            f"{was} in this run and cannot be changed by resume; start a run of its "
            f"own for that. What can be: {', '.join(MAY_CHANGE)}",
        )
    if before is _MISSING and key not in _OPTIONAL:
        raise ConfigError(key, "is no setting of that run")
    OmegaConf.update(spec, key, value, force_add=True)
