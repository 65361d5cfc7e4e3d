"""Each example is a Flower app that stands alone, and runs."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from flwr_caesar.runner.new_command import make
from flwr_caesar.tasks.vision import import_torchvision

from .apps import ROOT, check_bundle, require_packages, run

FOLDER = ROOT / "examples"
EXAMPLES = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))
ROUNDS = 2
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
    check_bundle(FOLDER / example)
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
    require_packages(FOLDER / example)
    settings = {"num-server-rounds": ROUNDS, **SHORTER.get(example, {})}
    data = own_data(example, tmp_path)
    strategy, summary = run(FOLDER / example, settings, data, tmp_path, monkeypatch)
    dropped = {why for r in strategy.history for why in r.dropped.values()}
    assert dropped <= LATE.get(example, set())
    accuracy, part = EXPECTED[example]
    assert summary["rounds"] == ROUNDS
    assert summary["accuracy"] > accuracy
    sent = summary["bytes_up"] + summary["bytes_down"]
    assert sent < part * summary["raw_bytes"]
