from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from flwr_caesar.deploy import units
from flwr_caesar.deploy.fleet import FleetError
from flwr_caesar.deploy.server import make_server
from flwr_caesar.deploy.server_folder import ServerFolder, ServerSettings
from flwr_caesar.runner.superlink import executable

MOST_EXPOSED = 5.0


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    return units.write(ServerFolder(Path("/var/lib/flwr-caesar")), tmp_path)


def test_units_are_filled_in(written: list[Path]) -> None:
    for unit in written:
        text = unit.read_text()
        assert not re.search(r"@[A-Z_]+@", text), unit
        if unit.suffix == ".service":
            (start,) = re.findall(r"^ExecStart=(\S+) (.*)$", text, re.M)
            assert start[0] == executable("flwr-caesar")
            assert start[1].endswith("--folder /var/lib/flwr-caesar")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_and_little_exposed(written: list[Path]) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, written)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [
        line
        for line in verified.stderr.splitlines()
        if "flwr-caesar" in line and "is not executable" not in line
    ]
    assert ours == []
    for unit in written:
        if unit.suffix != ".service":
            continue
        rated = subprocess.run(
            [
                *("systemd-analyze", "security", "--offline=yes", "--no-pager"),
                str(unit),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        (level,) = re.findall(r"exposure level for .*: ([0-9.]+)", rated.stdout)
        assert float(level) <= MOST_EXPOSED, unit


def test_a_server_comes_back_by_itself_and_never_as_root(written: list[Path]) -> None:
    for unit in written[:2]:
        text = unit.read_text()
        for line in ("Restart=always", "StartLimitIntervalSec=0", "User=flwr-caesar"):
            assert line in text.splitlines()
    assert "Persistent=yes" in written[3].read_text().splitlines()


@pytest.mark.skipif(not shutil.which("hadolint"), reason="no hadolint")
def test_hadolint_finds_nothing_wrong() -> None:
    dockerfile = files("flwr_caesar.deploy").joinpath("files/docker/Dockerfile.server")
    done = subprocess.run(
        ["hadolint", str(dockerfile)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_installing_gives_the_folder_to_the_user_but_not_the_authoritys_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ServerFolder(tmp_path / "server")
    make_server(folder, ServerSettings(addresses=("fleet.example",)))
    owners: dict[str, str] = {}
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(units, "UNITS", tmp_path)
    monkeypatch.setattr(units, "require_user", lambda home: None)
    monkeypatch.setattr(
        units,
        "give",
        lambda path: owners.update({p.name: "user" for p in [path, *path.rglob("*")]}),
    )
    monkeypatch.setattr(units, "_systemctl", lambda *command: commands.append(command))
    units.install(folder)
    theirs = {"state", "fleet.db", ".flwr", "config.toml", "gate.pem", "superlink.key"}
    assert set(owners) == theirs
    units.start()
    assert commands[0] == ("daemon-reload",)
    assert ("restart", "flwr-caesar-superlink.service", "flwr-caesar-gate.service") in (
        commands
    )


def test_an_installation_that_services_cannot_see_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(units.sys, "prefix", "/home/alice/venv")
    with pytest.raises(FleetError, match="no service can see: install it elsewhere"):
        units.install(ServerFolder(tmp_path))
