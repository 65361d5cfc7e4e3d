"""Each example is a Flower app that stands alone, and runs."""

from __future__ import annotations

import json
import random
import re
import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from flwr.supercore.fab_format_version import normalize_and_validate_fab_format
from sklearn.datasets import load_digits

from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.runner.new_command import make
from flwr_caesar.strategies import CompressedStrategy
from flwr_caesar.tasks.vision import import_torchvision

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
EXAMPLES = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))
ROUNDS = 2
DEVICES = 10
# What a package is imported as, where that is not its name.
_MODULES = {"scikit-learn": "sklearn", "lightning": "lightning.pytorch"}
# What accuracy two rounds are to pass, and the largest part of plain traffic that they
# may cost. SCAFFOLD's control variates travel whole.
EXPECTED = {
    "caesar-flowertune": (0.3, 0.3),
    "caesar-quickstart": (0.4, 0.25),
    "deadlines": (0.2, 0.25),
    "differential-privacy": (0.4, 0.25),
    "lightning": (0.6, 0.25),
    "scaffold": (0.4, 0.5),
    "scikit-learn": (0.8, 0.2),
    "tensorboard": (0.4, 0.25),
}
LATE = {"deadlines": {"after the deadline, by the virtual clock"}}
# Two rounds of all its steps take ten seconds.
SHORTER = {"caesar-flowertune": {"local-steps": 4}}


def project(example: str) -> dict[str, Any]:
    text = (FOLDER / example / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def names(example: str) -> list[str]:
    """Return the packages that an example depends on."""
    found = project(example)["project"]["dependencies"]
    return [re.split(r"[\[<>=]", entry)[0] for entry in found]


def importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def own_data(example: str, folder: Path) -> Path:
    """Write what a real device of an example has."""
    if example == "caesar-flowertune":
        (folder / "texts.txt").write_text("What a device has learnt. " * 200, "utf-8")
        return folder / "texts.txt"
    digits = load_digits()
    x, y = digits.data[:150] / 16, digits.target[:150]
    np.savez(folder / "digits.npz", x=x, y=y)
    return folder / "digits.npz"


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER / e) for e in EXAMPLES] + sys.path)
    if find_spec("torchvision"):
        # Lightning and peft import it, and it may be for another torch.
        import_torchvision()


def test_every_example_is_expected() -> None:
    assert list(EXPECTED) == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_bundle(example: str) -> None:
    config, warnings = load_and_validate(FOLDER / example / "pyproject.toml")
    assert warnings == []
    found = normalize_and_validate_fab_format(config)
    assert found.fab_format_version == 1
    assert len(build_fab_from_disk(FOLDER / example)) < 100_000
    assert (FOLDER / example / "LICENSE").read_bytes() == (
        ROOT / "LICENSE"
    ).read_bytes()
    readme = (FOLDER / example / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\ntags: [")
    assert "flwr-caesar run app=" in readme
    assert "flwr run ." in readme
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"[{example}]({example})" in table


def test_the_quickstart_is_what_new_makes(tmp_path: Path) -> None:
    make(tmp_path / "caesar-quickstart", "caesar-quickstart")
    made = tmp_path / "caesar-quickstart" / "caesar_quickstart"
    kept = FOLDER / "caesar-quickstart" / "caesar_quickstart"
    files = sorted(path.name for path in made.iterdir())
    assert files == sorted(path.name for path in kept.glob("*.py"))
    for name in files:
        assert (made / name).read_bytes() == (kept / name).read_bytes(), name


@pytest.mark.parametrize(
    "copy",
    [
        "deadlines/deadline_fleet",
        "differential-privacy/private_digits",
        "tensorboard/tensorboard_digits",
    ],
)
def test_copies_of_the_task_do_not_drift(copy: str) -> None:
    kept = FOLDER / "caesar-quickstart" / "caesar_quickstart" / "task.py"
    assert (FOLDER / copy / "task.py").read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.usefixtures("path")
def test_an_example_runs(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = [n for n in names(example) if not importable(_MODULES.get(n, n))]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    random.seed(0)  # by which strategies choose devices
    kept: list[CompressedStrategy] = []
    told = CompressedStrategy.report

    def report(strategy: CompressedStrategy) -> str:
        kept.append(strategy)
        return told(strategy)

    monkeypatch.setattr(CompressedStrategy, "report", report)
    app = project(example)["tool"]["flwr"]["app"]
    shorter = SHORTER.get(example, {})
    run_config = {**app["config"], "num-server-rounds": ROUNDS, **shorter}
    client, server = (
        getattr(import_module(module), name)
        for module, _, name in (
            app["components"][part].partition(":")
            for part in ("clientapp", "serverapp")
        )
    )
    grid = InlineGrid(client, DEVICES, run_config)
    own = {"data-path": str(own_data(example, tmp_path))}
    for node in range(1, DEVICES + 1, 2):  # as SuperNodes that have a file
        context = grid.contexts[node]
        grid.contexts[node] = replace(
            context, node_config={**own, "state-dir": "context"}
        )
    server(grid, Context(1, 0, {}, RecordDict(), run_config))
    (strategy,) = kept
    dropped = {why for r in strategy.history for why in r.dropped.values()}
    assert dropped <= LATE.get(example, set())
    strategy.save(tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    accuracy, part = EXPECTED[example]
    assert summary["rounds"] == ROUNDS
    assert summary["accuracy"] > accuracy
    sent = summary["bytes_up"] + summary["bytes_down"]
    assert sent < part * summary["raw_bytes"]
