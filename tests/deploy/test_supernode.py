from __future__ import annotations

import os
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from flwr_caesar.deploy.node_file import ENVIRONMENT, NodeFile
from flwr_caesar.deploy.notify import Notifier
from flwr_caesar.deploy.policy import Limits
from flwr_caesar.deploy.supernode import (
    SuperNode,
    command,
    environment,
    node_config,
    port_is_free,
)

NODE = NodeFile(
    address="[2001:db8::7]:8443",
    ca=Path("/etc/flwr-caesar/ca.crt"),
    name="jetson-07",
    key=Path("/etc/flwr-caesar/device.key"),
    partition_id=7,
    num_partitions=40,
    state_dir=Path("/var/lib/with space/größe"),
    port=9194,
    node_config={"data": "/data/part 7", "augment": True, "lr": 1e-05, "n": -3},
    limits=Limits(threads=4, gpu="required"),
)


def test_flower_reads_the_node_config_as_it_was_meant() -> None:
    assert parse_config_args([node_config(NODE)]) == {
        "partition-id": 7,
        "num-partitions": 40,
        "state-dir": "/var/lib/with space/größe",
        "gpu": "required",
        "threads": 4,
        "data": "/data/part 7",
        "augment": True,
        "lr": 1e-05,
        "n": -3,
    }
    plain = replace(NODE, node_config={}, limits=Limits())
    assert "threads" not in parse_config_args([node_config(plain)])


def test_the_command_has_everything_that_flower_asks_for() -> None:
    asked = command(NODE)
    assert Path(asked[0]).name == "flower-supernode"
    pairs = dict(zip(asked[1::2], asked[2::2], strict=True))
    assert pairs == {
        "--superlink": "[2001:db8::7]:8443",
        "--root-certificates": "/etc/flwr-caesar/ca.crt",
        "--auth-supernode-private-key": "/etc/flwr-caesar/device.key",
        "--isolation": "subprocess",
        "--host": "127.0.0.1",
        "--port": "9194",
        "--node-config": node_config(NODE),
    }


def test_what_it_starts_finds_flowers_commands_and_the_node_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.delenv("FLWR_HOME", raising=False)
    env = environment(NODE, Path("/etc/flwr-caesar/node.toml"))
    assert str(Path(sys.executable).parent) in env["PATH"].split(os.pathsep)
    assert env[ENVIRONMENT] == "/etc/flwr-caesar/node.toml"
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["FLWR_HOME"] == "/var/lib/with space/größe/.flwr"
    # systemd's are the node's own: a SuperNode must not say that it is alive.
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(env)
    assert "CUDA_VISIBLE_DEVICES" not in env
    never = replace(NODE, limits=Limits(gpu="never"))
    assert environment(never, tmp_path)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_process_is_read_watched_and_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "supernode"
    script.write_text(
        "#!/bin/sh\n"
        "echo 'INFO : Connection attempt failed, retrying in 1.00 seconds'\n"
        "echo 'INFO : SuperNode ID: 17'\n"
        "sleep 1000 &\n"
        'trap "echo signing off; exit 0" TERM\n'
        "while true; do sleep 0.05; done\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(
        "flwr_caesar.deploy.supernode.command", lambda node: [str(script)]
    )
    said: list[str] = []
    running = SuperNode(NODE, tmp_path / "node.toml", echo=said.append)
    while not running.online:
        pass
    assert running.link_events == 1
    assert running.exit_code is None
    before = running.progress()
    while running.progress() == before:
        pass
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    running.stop()
    assert running.exit_code == 0
    assert running.tail()[-1] == said[-1] == "signing off"
    assert not any(Path(f"/proc/{child}/exe").exists() for child in children.split())
    assert running.progress() == 0


def test_ports(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not port_is_free(taken.getsockname()[1])


def test_systemd_is_told(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.ready()
        notifier.status("waiting\nfor the server")
        notifier.alive()
        notifier.stopping()
        told = [manager.recv(100) for _ in range(4)]
    assert told == [
        b"READY=1",
        b"STATUS=waiting for the server",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]
    notifier.alive()  # a manager that is gone is no reason to end
    Notifier({}).ready()
