"""The app that a run bundles: the reference app, or one of the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flwr_caesar.runner.errors import RunFailedError
from flwr_caesar.runner.own_app import rounds_of, run_config


@dataclass(frozen=True)
class App:
    """What ``flwr run`` is given.

    Parameters
    ----------
    folder : Path
        The app's.
    run_config : str
        TOML that replaces some of its configuration.
    name : str
        What to call the run.
    rounds : int, optional
        How many there will be, if that is known.
    """

    folder: Path
    run_config: str
    name: str
    rounds: int | None

    @classmethod
    def reference(cls, spec: Mapping[str, Any], folder: Path) -> App:
        """Return the reference app with a configuration and a place for results."""
        return cls(
            app_folder(),
            # A JSON string is also a TOML string.
            f"spec = {json.dumps(json.dumps(spec))}\n"
            f"output-dir = {json.dumps(str(folder))}\n",
            spec["strategy"]["name"],
            spec["rounds"],
        )

    @classmethod
    def own(cls, spec: Mapping[str, Any]) -> App:
        """Return the user's own app."""
        folder = Path(spec["app"]).resolve()
        return cls(folder, run_config(spec), folder.name, rounds_of(spec))


def app_folder() -> Path:
    """Return the folder of the reference app, which ``flwr run`` bundles."""
    found = find_spec("flwr_caesar.reference_app")
    if found is None or not found.submodule_search_locations:
        raise RunFailedError("the reference app is not installed with flwr_caesar")
    return Path(next(iter(found.submodule_search_locations)))
