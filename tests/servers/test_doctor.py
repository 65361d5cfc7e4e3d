"""The doctor beside a real SuperLink: clocks, keys, and how open the server is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.pki import make_authority
from flwr_caesar.runner.superlink import executable

from .secure_link import NodeProcess, SecureLink

pytestmark = pytest.mark.servers

# Debian's package faketime.
FAKETIME = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(
    FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)"
)


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureLink]:
    with SecureLink(tmp_path_factory.mktemp("link")) as running:
        yield running


@pytest.fixture(scope="module")
def node(link: SecureLink) -> NodeFile:
    node = link.device("checked")
    link.register(node)
    return node


def clock(shift: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": shift}


def doctor(node: NodeFile, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run the command, and return its exit code and its findings by check."""
    done = subprocess.run(
        [executable("flwr-caesar"), "doctor", "--json", node.key.parent / "node.toml"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert told["exit"] == done.returncode
    return done.returncode, {found["check"]: found for found in told["findings"]}


def test_a_device_that_can_take_part_but_for_a_server_that_is_open_to_it(
    link: SecureLink, node: NodeFile
) -> None:
    code, found = doctor(node)
    assert found["server"]["level"] == "ok"
    assert found["clock"]["level"] == "ok"
    assert found["certificate"]["level"] == "warning"
    assert "expires in 30 days" in found["certificate"]["text"]
    # There is no gate before this SuperLink.
    assert found["control API"]["level"] == "failure"
    assert "open to every device" in found["control API"]["text"]
    assert code == 2
    assert "No node runs here" in found["node"]["text"]
    with NodeProcess(node) as running:
        running.wait_for("Online: checked")
        assert doctor(node)[1]["node"]["level"] == "ok"
        assert running.stop() == 0


@needs_faketime
@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ("+10m", "Clock is 10 min ahead of the server; Flower refuses more than 5 s"),
        ("-20m", "Clock is 20 min behind the server; Flower refuses more than 5 min"),
        # A board without a battery for its clock: the certificate is not valid then.
        ("-3y", "days behind the server"),
    ],
)
def test_a_wrong_clock(node: NodeFile, shift: str, words: str) -> None:
    code, found = doctor(node, **clock(shift))
    assert code == 2
    assert words in found["server"]["text"]
    assert "timedatectl set-ntp true" in found["server"]["fix"]


@needs_faketime
def test_a_node_with_a_wrong_clock_says_so_and_starts_once_it_is_set(
    link: SecureLink,
) -> None:
    late = link.device("late-clock")
    link.register(late)
    with NodeProcess(late, **clock("+10m")) as running:
        running.wait_for("Clock is 10 min ahead of the server")
        assert not running.said("Starting Flower SuperNode")
        assert running.stop() == 0
    with NodeProcess(late) as running:
        running.wait_for("Online: late-clock")
        assert running.stop() == 0


def test_an_unknown_key_a_wrong_name_and_another_ca(
    link: SecureLink, node: NodeFile, tmp_path: Path
) -> None:
    unknown = link.device("stranger")
    code, found = doctor(unknown)
    assert code == 2
    assert "does not know this device's key" in found["server"]["text"]
    assert "flwr-caesar enrol ticket stranger" in found["server"]["fix"]

    # It listens on all of loopback's addresses that its certificate does not name.
    elsewhere = replace(node, address=f"0.0.0.0:{link.port}")
    assert "is not for 0.0.0.0, only for" in _saved(elsewhere, tmp_path / "a")

    other = tmp_path / "other"
    other.mkdir()
    (other / "ca.crt").write_bytes(make_authority().certificate_pem)
    wrong = replace(node, ca=other / "ca.crt")
    assert "signed by another authority" in _saved(wrong, tmp_path / "b")


def _saved(node: NodeFile, folder: Path) -> str:
    """Return what the doctor says of the server to a device with another file."""
    folder.mkdir()
    key = folder / "device.key"
    key.write_bytes(node.key.read_bytes())
    key.chmod(0o600)
    moved = replace(node, key=key)
    moved.save(folder / "node.toml")
    return str(doctor(moved)[1]["server"]["text"])
