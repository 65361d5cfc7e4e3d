"""The command line: help, mistakes, and what is checked before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flwr_caesar import cli
from flwr_caesar.runner import command, config


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(command, "run", refuse)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "run" in capsys.readouterr().out
    assert cli.main(["fly"]) == 2
    assert "there are: " in capsys.readouterr().err


def test_help_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("strategy: caesar, ", "experiment: ", "mnist5k", "rounds", "-m"):
        assert part in text


@pytest.mark.usefixtures("never_run")
@pytest.mark.parametrize(
    "arguments",
    [
        ["rouds=3"],
        ["rounds=["],
        ["rounds"],
        ["strategy=fedavg,topk"],
        ["-m", "strategy=fedavg,nope"],
        ["-m", "strategy=fedavg,topk", "rounds=2,0"],
        ["-m", "strategy=fedavg,topk", "strategy.density=0.1"],
        ["-m", "experiment=mnist5k,caesar_mnist5k"],
        ["experiment=caesar_mnist5k", "strategy=fedavg", "strategy.density=0.1"],
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["run", *arguments]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("flwr-caesar: ")
    assert not list(tmp_path.iterdir())


def test_an_experiment_can_be_a_sweep_and_the_command_line_wins() -> None:
    def jobs(*arguments: str) -> list[list[str]]:
        return command._jobs(arguments, multirun=False, own_sweep=config.sweep_of)

    whole = jobs("experiment=caesar_mnist5k")
    assert len(whole) == 12
    assert whole[0][:2] == ["strategy=fedavg", "seed=1"]
    alone = jobs("experiment=caesar_mnist5k", "strategy=topk", "seed=7")
    assert alone == [["strategy=topk", "seed=7", "experiment=caesar_mnist5k"]]
    other = jobs("experiment=caesar_mnist5k", "strategy=fedavg,topk", "seed=1")
    assert [job[0] for job in other] == ["strategy=fedavg", "strategy=topk"]
    assert jobs("experiment=mnist5k") == [["experiment=mnist5k"]]


def test_the_packages_import_light() -> None:
    code = (
        "import sys, flwr_caesar, flwr_caesar.cli\n"
        "heavy = {'torch', 'hydra', 'matplotlib', 'flwr', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
