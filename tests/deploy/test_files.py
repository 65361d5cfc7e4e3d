"""Units, Dockerfiles and compose files, by the tools that read them where there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from flwr_caesar.deploy.units import fill

SHIPPED = Path(str(files("flwr_caesar.deploy") / "files"))
UNITS = sorted(p.name for p in (SHIPPED / "systemd").glob("*.service"))
MOST_EXPOSED = 5.0


# Beside this Python, or wherever the system has its own.
PLACES = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]
)


def needs(tool: str) -> pytest.MarkDecorator:
    missing = shutil.which(tool, path=PLACES) is None
    return pytest.mark.skipif(missing, reason=f"no {tool} here")


def run(tool: str, *arguments: str | Path) -> str:
    command = [shutil.which(tool, path=PLACES) or tool, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all units, filled in for a user that is here."""
    folder = tmp_path_factory.mktemp("units")
    for file in (SHIPPED / "systemd").glob("flwr-caesar-*"):
        text = fill(file.name, folder).replace("=flwr-caesar\n", "=root\n")
        (folder / file.name).write_text(text)
    return folder


def test_the_folder_has_units_of_both_sides() -> None:
    assert "flwr-caesar-node.service" in UNITS
    assert "flwr-caesar-gate.service" in UNITS


@needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_units_are_accepted_and_little_exposed(units: Path, name: str) -> None:
    verified = run("systemd-analyze", "verify", "--man=no", units / name)
    # It verifies what the unit needs too, which may be missing on this machine.
    about_it = [line for line in verified.splitlines() if name in line]
    assert about_it == []
    told = run("systemd-analyze", "security", "--offline=true", units / name)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


def test_the_nodes_unit_never_gives_up_and_is_watched(units: Path) -> None:
    text = (units / "flwr-caesar-node.service").read_text()
    for line in (
        "Restart=always",
        "StartLimitIntervalSec=0",
        "Type=notify",
        "WatchdogSec=180",
        "StateDirectoryMode=0700",
        "MemoryMax=85%",
        "IPAccounting=yes",
    ):
        assert line in text.splitlines()
    assert "@" not in re.sub(r"#.*", "", text)
    assert "node.toml" in text


@pytest.mark.parametrize("name", UNITS)
def test_a_forbidden_call_is_refused_and_kills_nothing(units: Path, name: str) -> None:
    # numpy's libraries try mbind when they are loaded, and go on without it.
    lines = (units / name).read_text().splitlines()
    filtered = any(line.startswith("SystemCallFilter=") for line in lines)
    assert ("SystemCallErrorNumber=EPERM" in lines) == filtered


@needs("hadolint")
@pytest.mark.parametrize(
    "name", sorted(p.name for p in (SHIPPED / "docker").glob("Dockerfile.*"))
)
def test_dockerfiles_pass_hadolint(name: str) -> None:
    assert run("hadolint", SHIPPED / "docker" / name) == ""


@needs("docker-compose")
@pytest.mark.parametrize(
    "names", [["server.yml"], ["device.yml"], ["device.yml", "jetson.yml"]]
)
def test_compose_files_fit_the_schema(names: list[str]) -> None:
    chosen = [part for name in names for part in ("-f", SHIPPED / "compose" / name)]
    run("docker-compose", *chosen, "config", "--quiet")


@needs("logrotate")
def test_the_log_rotation_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "rotation"
    shutil.copy(SHIPPED / "logrotate" / "flwr-caesar", file)
    file.chmod(0o644)
    told = run("logrotate", "--debug", "--state", tmp_path / "state", file)
    assert "error:" not in told


@pytest.mark.parametrize(
    "name", sorted(p.name for p in (SHIPPED / "docker").glob("Dockerfile.*"))
)
def test_images_have_a_wheel_with_the_kernel_and_no_sources(name: str) -> None:
    text = (SHIPPED / "docker" / name).read_text(encoding="utf-8")
    first, last = text[text.index("FROM") :].rsplit("\nFROM", 1)
    assert "ls /wheels/flwr_caesar-*-abi3-*.whl" in first
    assert "COPY --from=build /wheels /wheels" in last
    assert "/src" not in last
