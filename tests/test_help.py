"""Every command says in whole sentences what it does, and what each argument is."""

from __future__ import annotations

import re

import pytest

from flwr_caesar import cli

COMMANDS = (
    "codec",
    "codec bench",
    "codec list",
    "deploy",
    "deploy gate",
    "deploy lab",
    "deploy renew",
    "deploy serve",
    "deploy server",
    "deploy superlink",
    "doctor",
    "enrol",
    "enrol approve",
    "enrol ticket",
    "export-android",
    "faults",
    "fleet",
    "fleet connect",
    "fleet remove",
    "fleet status",
    "join",
    "new",
    "node",
    "report",
    "watch",
)
ARGUMENT = re.compile(r"^  (?! )(?P<name>\S.*?)(?:  +(?P<text>\S.*))?$")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_and_its_arguments_are_described(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main([*command.split(), "--help"])
    assert leaving.value.code == 0
    told, *parts = re.split(r"\n\n(?=positional arguments:|options:)", _help(capsys))
    _, _, description = told.partition("\n\n")
    assert re.match(r"[A-Z`].*?\.(\s|$)", description, re.S), description
    for part in parts:
        lines = part.partition("\n\n")[0].splitlines()[1:]
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            found = ARGUMENT.match(line)
            if found and found["name"] != "COMMAND":
                assert found["text"] or after.startswith("   "), line


def test_names_keep_their_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["deploy", "serve", "--help"])
    assert "Run SuperLink and gate here, until Ctrl-C." in _help(capsys)


def test_no_command_is_left_out() -> None:
    """`run` is described by Hydra, in conf/."""
    assert {command.split()[0] for command in COMMANDS} == set(cli.COMMANDS) - {"run"}


def _help(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out
