from __future__ import annotations

import re
from pathlib import Path

import pytest

from flwr_caesar.deploy import units
from flwr_caesar.deploy.fleet import FleetError
from flwr_caesar.deploy.server import make_server
from flwr_caesar.deploy.server_folder import ServerFolder, ServerSettings
from flwr_caesar.runner.superlink import executable


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


def test_a_node_asks_for_groups_that_are_there_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # systemd starts nothing for a group that does not exist (status 216/GROUP).
    for groups in ({"video", "render"}, {"video"}, set()):

        def getgrnam(name: str, known: set[str] = groups) -> str:
            if name not in known:
                raise KeyError(name)
            return name

        monkeypatch.setattr("grp.getgrnam", getgrnam)
        text = units.fill("flwr-caesar-node.service", Path("/etc/flwr-caesar"))
        (asked,) = re.findall(r"^SupplementaryGroups=(.*)$", text, re.M)
        assert set(asked.split()) == groups


def test_a_server_comes_back_by_itself_and_never_as_root(written: list[Path]) -> None:
    for unit in written[:2]:
        text = unit.read_text()
        for line in ("Restart=always", "StartLimitIntervalSec=0", "User=flwr-caesar"):
            assert line in text.splitlines()
    assert "Persistent=yes" in written[3].read_text().splitlines()


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
