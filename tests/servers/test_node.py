"""A device's node against a real SuperLink: what it says, and that it comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flwr_caesar.deploy.device_key import load_key
from flwr_caesar.deploy.metered import Metered, Window
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.probe import Probed, Standing, probe

from .secure_link import PATIENCE, NodeProcess, SecureLink

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureLink]:
    with SecureLink(tmp_path_factory.mktemp("link")) as running:
        yield running


def ask(node: NodeFile) -> Probed:
    return probe(*node.host_port, ca=node.ca, key=load_key(node.key))


def test_a_probe_tells_a_known_key_from_an_unknown_one_and_changes_nothing(
    link: SecureLink,
) -> None:
    known, unknown = link.device("known"), link.device("unknown")
    link.register(known)
    before = link.states()
    found = ask(known)
    assert found.standing is Standing.ENROLLED
    assert found.skew is not None
    assert abs(found.skew) < 3
    assert found.certificate is not None
    assert found.certificate.names == ("localhost", "127.0.0.1")
    assert ask(unknown).standing is Standing.UNKNOWN_KEY
    assert link.states() == before
    # The device can still come online: a probe did not take its place.
    with NodeProcess(known) as running:
        running.wait_for("Online: known")
        assert ask(known).standing is Standing.ENROLLED
        assert link.states().count("online") == 1
        assert running.stop() == 0
    wait_until(lambda: link.states().count("online") == 0)


def test_an_unknown_key_is_said_and_the_node_comes_online_once_it_is_known(
    link: SecureLink,
) -> None:
    node = link.device("late")
    with NodeProcess(node) as running:
        running.wait_for("does not know this device's key")
        assert not running.said("Starting Flower SuperNode")
        link.register(node)
        running.wait_for("Online: late")
        assert running.stop() == 0


def test_a_killed_supernode_is_explained_waited_for_and_online_again(
    link: SecureLink,
) -> None:
    node = link.device("killed")
    link.register(node)
    with NodeProcess(node) as running:
        online = running.wait_for("Online: killed")
        os.kill(running.supernode(), signal.SIGKILL)
        killed = running.wait_for("was killed (SIGKILL)", after=online)
        refused = running.wait_for("This key is already online", after=killed)
        running.wait_for("waiting", after=refused)
        running.wait_for("Online: killed", after=refused)
        assert running.stop() == 0


def test_a_supernode_whose_executor_died_is_started_again(link: SecureLink) -> None:
    node = link.device("orphan")
    link.register(node)
    with NodeProcess(node) as running:
        online = running.wait_for("Online: orphan")
        supernode = running.supernode()
        children = Path(f"/proc/{supernode}/task/{supernode}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGKILL)
        ended = running.wait_for("flower-superexec, which starts the", after=online)
        running.wait_for("Online: orphan", after=ended)
        assert running.supernode() != supernode
        assert running.stop() == 0


def test_a_restarted_server_is_waited_for_and_found_again(
    tmp_path: Path,
) -> None:
    with SecureLink(tmp_path) as link:
        node = link.device("patient")
        link.register(node)
        with NodeProcess(node) as running:
            running.wait_for("Online: patient")
            link.kill()
            down = running.wait_for("Nothing listens on")
            link.start()
            running.wait_for("The server answers and knows this device", after=down)
            wait_until(lambda: link.states() == ["online"])
            assert running.stop() == 0


def test_a_removed_device_is_told_although_its_supernode_ends_without_an_error(
    link: SecureLink,
) -> None:
    node = link.device("removed")
    number = link.register(node)
    with NodeProcess(node) as running:
        online = running.wait_for("Online: removed")
        link.unregister(number)
        ended = running.wait_for("terminated gracefully", after=online)
        running.wait_for("or it was removed", after=ended)
        assert running.stop() == 0


def test_outside_its_hours_a_metered_device_is_off_the_link(link: SecureLink) -> None:
    node = link.device("metered")
    link.register(node)
    now = datetime.now()
    start = now + timedelta(hours=5)
    window = Window(60 * start.hour, (60 * start.hour + 60) % 1440)
    away = replace(node, metered=Metered(windows=(window,), interface="lo"))
    away.save(node.key.parent / "node.toml")
    with NodeProcess(away) as running:
        running.wait_for(
            f"Off the metered link: outside its hours, back at {window}"[:-6]
        )
        assert not running.said("Starting Flower SuperNode")
        assert running.stop() == 0
    # And one whose day is used up while it is online: loopback carries its bytes.
    (node.state_dir / "link.json").unlink()
    spent = replace(node, metered=Metered(bytes_a_day=1, interface="lo"))
    spent.save(node.key.parent / "node.toml")
    with NodeProcess(spent) as running:
        first = running.wait_for("Online: metered")
        running.wait_for("Leaving the metered link", after=first)
        running.wait_for("of today are used", after=first)
        wait_until(lambda: "online" not in link.states())
        assert running.stop() == 0


def test_a_taken_port_and_a_missing_key_are_said_before_anything_starts(
    link: SecureLink,
) -> None:
    node = link.device("taken")
    link.register(node)
    taken = replace(node, port=link.port)
    taken.save(node.key.parent / "node.toml")
    with NodeProcess(taken) as running:
        running.wait_for(f"Port {link.port} of this machine is taken")
    node.save(node.key.parent / "node.toml")
    node.key.rename(node.key.with_suffix(".away"))
    with NodeProcess(node) as running:
        running.wait_for("the key")
        node.key.with_suffix(".away").rename(node.key)
        running.wait_for("Online: taken")


def wait_until(true: object) -> None:
    assert callable(true)
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)
