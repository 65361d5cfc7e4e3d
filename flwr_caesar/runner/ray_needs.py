"""What Ray, which simulates devices, needs of a machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flwr_caesar.tasks.errors import ConfigError

_KEY = "federation.kind"
_INSTEAD = f"or set {_KEY}=inline, which needs no Ray"
_SHARED_MEMORY = Path("/dev/shm")  # Linux's; its size does not matter to Ray


def check_ray(federation: Mapping[str, Any]) -> None:
    """Refuse a simulation that Ray could not begin, and would be silent about.

    Parameters
    ----------
    federation : mapping
        The ``federation`` group.

    Raises
    ------
    ConfigError
        If Ray is not installed, or is to be started where it has no shared memory, or
        by a Python whose path has a space.
    """
    if federation["kind"] != "simulation":
        return
    if find_spec("ray") is None:
        raise ConfigError(
            _KEY,
            "simulation needs ray: pip install 'flwr-caesar[simulation]', " + _INSTEAD,
        )
    started_here = federation.get("ray_address") is None
    if started_here and " " in sys.executable:  # Ray's workers are a shell's command
        raise ConfigError(
            _KEY,
            "simulation starts Ray, which cannot run a Python whose path has a space, "
            f"{sys.executable}: make the environment elsewhere, " + _INSTEAD,
        )
    can_write = os.access(_SHARED_MEMORY, os.R_OK | os.W_OK | os.X_OK)
    if started_here and sys.platform == "linux" and not can_write:
        raise ConfigError(
            _KEY,
            f"simulation starts Ray, which must be able to write to {_SHARED_MEMORY} "
            "and cannot here: mount a tmpfs there (Docker does by --shm-size=1g), "
            + _INSTEAD,
        )
