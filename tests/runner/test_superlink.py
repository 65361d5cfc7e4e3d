"""A SuperLink of one's own leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flwr_caesar.runner import superlink
from flwr_caesar.runner.processes import end_family, family
from flwr_caesar.runner.superlink import (
    SuperLink,
    SuperLinkError,
    flower_environment,
    free_port,
)
from flwr_caesar.runner.watch import Watch

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


# A command that starts such a nest; then the test kills it.
COMMAND = """
import os, subprocess, sys, time
from pathlib import Path
from flwr_caesar.runner.watch import Watch
marker, folder, nest = sys.argv[1:]
watch = Watch(marker, Path(folder))
name, _, value = marker.partition("=")
environment = {**os.environ, name: value}
subprocess.Popen(
    [sys.executable, "-c", nest], env=environment, start_new_session=True
)
if os.fork() == 0:  # holds the watch's pipe open for longer
    time.sleep(600)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120  # longer only if it is broken
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_killed_command_started_ends_with_it(tmp_path: Path) -> None:
    marker = f"FLWR_CAESAR_TEST={tmp_path}"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "file").touch()
    command = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, marker, str(scratch), NEST],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == b"ready\n"
    command.stdout.close()
    members = family(-1, marker)
    assert len(members) == 3
    command.kill()
    command.wait()
    wait_for(lambda: not scratch.exists())
    assert family(-1, marker, members) == set()
    os.killpg(command.pid, signal.SIGKILL)  # the fork


def test_a_watch_notices_a_command_that_died_before_it_looked(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = subprocess.Popen([sys.executable, "-c", ""])
    command.wait()
    arguments = [str(command.pid), "FLWR_CAESAR_TEST=nobody", str(scratch)]
    watcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "flwr_caesar.runner.watch", *arguments],
        stdin=subprocess.PIPE,  # held open, as by a child that the command forked
    )
    with watcher:
        watcher.wait(timeout=120)
    assert not scratch.exists()


def test_a_watch_that_is_closed_harms_nothing(tmp_path: Path) -> None:
    watch = Watch("FLWR_CAESAR_TEST=nobody", tmp_path)
    watch.close()
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.b, 10.0.0.0/8"}, "a.b,10.0.0.0/8,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,b,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_loopback_is_reached_without_the_proxy(
    given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = flower_environment()
    assert environment["no_proxy"] == environment["NO_PROXY"] == expected


def test_a_socks_proxy_that_httpx_cannot_use_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ALL_PROXY", "https_proxy", "LANGUAGE"):
        monkeypatch.setenv(name, "socks5h://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(superlink, "find_spec", lambda name: None)
    environment = flower_environment()
    assert not {"ALL_PROXY", "https_proxy"} & environment.keys()
    assert environment["http_proxy"] == "http://127.0.0.1:9"
    assert environment["LANGUAGE"] == "socks5h://127.0.0.1:9"
    monkeypatch.setattr(superlink, "find_spec", lambda name: name)
    assert {"ALL_PROXY", "https_proxy"} <= flower_environment().keys()


def test_without_a_place_for_files_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: object) -> str:
        raise OSError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(SuperLinkError, match="set TMPDIR"):
        SuperLink()


def test_its_simulations_are_on_another_ray_only_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    monkeypatch.setenv("PYTHONPATH", "before")
    link = SuperLink()
    try:
        assert "RAY_ADDRESS" not in link.environment
        link.use_ray_cluster("head:6379", Path("/srv/my-app"))
        assert link.environment["RAY_ADDRESS"] == "head:6379"
        # The other machines have no copy of the app that Flower unpacks on this one.
        assert link.environment["PYTHONPATH"] == "/srv/my-app:before"
    finally:
        link.stop()


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
