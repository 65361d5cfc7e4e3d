"""Apps of folders of their own: read, and run in one process as their users would."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from flwr.supercore.fab_format_version import normalize_and_validate_fab_format

from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import CompressedStrategy

ROOT = Path(__file__).parents[2]
DEVICES = 10
# What a package is imported as, where that is not its name.
_MODULES = {"scikit-learn": "sklearn", "lightning": "lightning.pytorch"}


def project(folder: Path) -> dict[str, Any]:
    """Return an app's pyproject.toml."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def require_packages(folder: Path) -> None:
    """Skip the test if something is not installed that an app depends on."""
    entries = project(folder)["project"]["dependencies"]
    names = [re.split(r"[\[<>=]", entry)[0] for entry in entries]
    missing = [name for name in names if not _importable(_MODULES.get(name, name))]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def check_bundle(folder: Path) -> None:
    """Check that an app can be bundled and has what a hub asks for."""
    config, warnings = load_and_validate(folder / "pyproject.toml")
    assert warnings == []
    found = normalize_and_validate_fab_format(config)
    assert found.fab_format_version == 1
    assert len(build_fab_from_disk(folder)) < 100_000
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    assert "flwr-caesar run app=" in readme.replace(" -m ", " ")
    assert "flwr run ." in readme


def run(
    folder: Path,
    settings: Mapping[str, Any],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[CompressedStrategy, dict[str, Any]]:
    """Run an app whose folder is on the path, half of its devices as SuperNodes are.

    Parameters
    ----------
    folder : Path
        The app's.
    settings : mapping
        What replaces its configuration.
    data : Path
        The file that devices with data of their own have.

    Returns
    -------
    tuple of CompressedStrategy and dict
        Its strategy and the summary that this saved.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    random.seed(0)  # by which strategies choose devices
    kept: list[CompressedStrategy] = []
    told = CompressedStrategy.report

    def report(strategy: CompressedStrategy) -> str:
        kept.append(strategy)
        return told(strategy)

    monkeypatch.setattr(CompressedStrategy, "report", report)
    app = project(folder)["tool"]["flwr"]["app"]
    run_config = {**app["config"], **settings}
    client, server = (
        getattr(import_module(module), name)
        for module, _, name in (
            app["components"][part].partition(":")
            for part in ("clientapp", "serverapp")
        )
    )
    grid = InlineGrid(client, DEVICES, run_config)
    own = {"data-path": str(data)}
    for node in range(1, DEVICES + 1, 2):  # as SuperNodes that have a file
        context = grid.contexts[node]
        grid.contexts[node] = replace(
            context, node_config={**own, "state-dir": "context"}
        )
    server(grid, Context(1, 0, {}, RecordDict(), run_config))
    (strategy,) = kept
    strategy.save(tmp_path / "run")
    text = (tmp_path / "run" / "summary.json").read_text("utf-8")
    return strategy, json.loads(text)
