"""A SuperLink of one's own leaves nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flwr_caesar.runner.processes import end_family, family
from flwr_caesar.runner.superlink import SuperLink, free_port

# A child that leaves its parent's session, ignores SIGTERM, forgets its environment's
# marker and has a child of its own; then the parent waits.
NEST = """
import subprocess, sys, time
code = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})
print("ready", flush=True)
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", code], start_new_session=True, env={})
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds processes through /proc"
)


def test_a_family_that_scatters_and_refuses_is_ended() -> None:
    marker = f"FLWR_CAESAR_TEST={os.getpid()}"
    name, _, value = marker.partition("=")
    root = subprocess.Popen(
        [sys.executable, "-c", NEST],
        env={**os.environ, name: value},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert root.stdout is not None
    assert root.stdout.readline() == b"ready\n"
    members = family(root.pid, marker)
    assert len(members) == 3
    end_family(root, marker, grace_s=0.5)
    assert root.poll() is not None
    assert family(root.pid, marker, members) == set()
    root.stdout.close()


def test_a_port_is_free_and_not_one_that_a_connection_may_take() -> None:
    port = free_port()
    assert 20_000 <= port < 32_768
    with socket.create_server(("127.0.0.1", port)):
        assert free_port() != port


def test_a_stranger_is_not_family() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        found = family(2**22 + 1, "FLWR_CAESAR_TEST=nobody")
        assert found == set()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.servers
def test_it_answers_then_disappears() -> None:
    with SuperLink() as link:
        marker = f"FLWR_HOME={link.home}"
        assert link.alive
        members = family(-1, marker)
        assert len(members) >= 2  # itself and the process that starts apps
        assert (link.home / "config.toml").is_file()
    assert family(-1, marker, members) == set()
    assert not link.home.exists()


@pytest.mark.servers
def test_it_is_stopped_when_the_work_fails() -> None:
    link = SuperLink()
    with pytest.raises(ZeroDivisionError), link:
        raise ZeroDivisionError
    assert family(-1, f"FLWR_HOME={link.home}") == set()
    assert not link.home.exists()
