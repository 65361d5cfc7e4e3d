"""A lab is taken down, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flwr_caesar.deploy import network
from flwr_caesar.deploy.lab import PREFIX, Lab, LabError
from flwr_caesar.deploy.network import why_not
from flwr_caesar.runner.superlink import executable

pytestmark = pytest.mark.servers


def namespaces_of(pid: int) -> list[str]:
    listed = network.ip("ip", "netns", "list").split()
    return [name for name in listed if name.startswith(f"{PREFIX}{pid}-")]


def pids_in(pid: int) -> list[int]:
    return [
        int(found)
        for name in namespaces_of(pid)
        for found in network.ip("ip", "netns", "pids", name).split()
    ]


def is_at_work(pid: int) -> bool:
    """Whether a process is there, and not only its exit status, unread."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def staying(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a lab of its own, started by the command, that waits for Ctrl-C."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    command = [executable("flwr-caesar"), "deploy", "lab", "--devices", "1", "--stay"]
    process = subprocess.Popen(
        [*command, "--home", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
    assert len(namespaces_of(process.pid)) == 2
    yield process
    process.kill()
    process.wait()
    network.delete_abandoned(PREFIX)


def test_a_lab_is_taken_down_by_ctrl_c(staying: subprocess.Popen[str]) -> None:
    pids = pids_in(staying.pid)
    assert len(pids) >= 5  # SuperLink, gate, node, SuperNode and their executors
    staying.send_signal(signal.SIGINT)
    assert staying.wait(timeout=120) == 130
    assert namespaces_of(staying.pid) == []
    assert not any(is_at_work(pid) for pid in pids)


def test_what_a_killed_lab_left_is_taken_down_by_the_next_one(
    staying: subprocess.Popen[str],
) -> None:
    pids = pids_in(staying.pid)
    assert pids
    staying.kill()
    staying.wait()
    network.delete_abandoned(PREFIX)
    assert namespaces_of(staying.pid) == []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not any(is_at_work(pid) for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("processes of the killed lab are still there")


def test_a_lab_that_fails_is_taken_down(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)

    def fail() -> None:
        with Lab([20.0], home=tmp_path) as lab:
            lab.start_server()
            servers.append(lab.server)
            lab.enrol("ticket", "no name")

    servers: list[str] = []
    with pytest.raises(LabError, match="is no name"):
        fail()
    assert not set(servers) & set(namespaces_of(os.getpid()))
