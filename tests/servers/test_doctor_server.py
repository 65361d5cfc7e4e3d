"""The doctor on a server that `flwr-caesar deploy` made, and behind its gate."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.runner.processes import end_family
from flwr_caesar.runner.superlink import executable, flower_environment, free_port

from .secure_link import PATIENCE

pytestmark = pytest.mark.servers


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [executable("flwr-caesar"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def doctor(*arguments: str | Path) -> dict[str, Any]:
    told = json.loads(run("doctor", "--json", *arguments).stdout)
    return {found["check"]: found for found in told["findings"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that runs."""
    folder = tmp_path_factory.mktemp("server")
    ports = [free_port() for _ in range(3)]
    options = zip(("--port", "--superlink-port", "--metrics-port"), ports, strict=True)
    made = run(
        *("deploy", "server", "--folder", folder, "--address", "127.0.0.1"),
        *(str(part) for option in options for part in option),
    )
    assert made.returncode == 0, made.stderr
    marker = f"DOCTOR_TEST={ports[0]}"
    name, _, value = marker.partition("=")
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [executable("flwr-caesar"), "deploy", "serve", "--folder", str(folder)],
            env={**flower_environment(), name: value},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while any(
            doctor("--server", folder).get(check, {}).get("level") != "ok"
            for check in ("SuperLink", "gate")
        ):
            assert time.monotonic() < deadline, (folder / "serve.log").read_text()
            assert process.poll() is None, (folder / "serve.log").read_text()
        yield folder
    finally:
        end_family(process, marker, grace_s=30)


def test_a_server_is_well_and_its_control_api_closed(folder: Path) -> None:
    found = doctor("--server", folder)
    assert found.pop("clock")["level"] in ("ok", "warning")  # as this machine is
    assert {check: f["level"] for check, f in found.items() if f["level"] != "ok"} == {}
    assert found["control API"]["text"] == "closed to devices"
    assert found["loopback"]["text"].endswith("is not open to others")
    assert found["certificate"]["text"].startswith("valid for")


def test_a_device_behind_the_gate_is_well(folder: Path, tmp_path: Path) -> None:
    ticket = run("enrol", "ticket", "jetson-07", "--folder", folder)
    assert ticket.returncode == 0, ticket.stderr
    text = next(line for line in ticket.stdout.splitlines() if len(line) > 80)
    joined = run(
        *("join", text.strip(), "--folder", tmp_path / "device"),
        *("--state", tmp_path / "state", "--port", str(free_port())),
        *("--machine", f"machine of {os.getpid()}", "--no-start"),
    )
    assert joined.returncode == 0, joined.stderr
    found = doctor(tmp_path / "device" / "node.toml")
    assert found["server"]["text"].endswith("knows this device")
    assert found["control API"]["level"] == "ok"
    assert found["clock"]["level"] == "ok"
    assert found["key"]["level"] == "ok"
