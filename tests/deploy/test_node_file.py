from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest

from flwr_caesar.deploy.metered import Metered, Window
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.policy import Limits
from flwr_caesar.deploy.toml_table import NodeFileError

MINIMAL = """
[server]
address = "fleet.example:8443"
ca = "ca.crt"

[device]
name = "jetson-07"
key = "device.key"
partition-id = 7
num-partitions = 40
state-dir = "state"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def test_what_is_left_out_has_defaults_and_paths_are_beside_the_file(
    tmp_path: Path,
) -> None:
    node = NodeFile.load(write(tmp_path, MINIMAL))
    assert node == NodeFile(
        address="fleet.example:8443",
        ca=tmp_path / "ca.crt",
        name="jetson-07",
        key=tmp_path / "device.key",
        partition_id=7,
        num_partitions=40,
        state_dir=tmp_path / "state",
    )
    assert node.host_port == ("fleet.example", 8443)
    assert (node.port, node.limits, node.metered) == (9094, Limits(), None)


def test_a_saved_file_reads_back_alike_and_is_the_owners_alone(tmp_path: Path) -> None:
    node = NodeFile(
        address="[2001:db8::7]:8443",
        ca=tmp_path / "pki" / "ca.crt",
        name="jetson-07",
        key=Path("/var/lib/elsewhere/device.key"),
        partition_id=7,
        num_partitions=40,
        state_dir=tmp_path / "state",
        port=9194,
        node_config={"data": "/data/part 7", "augment": True, "lr-scale": 0.5, "n": 3},
        limits=Limits(temperature=70, battery=40, threads=4, gpu="required"),
        metered=Metered(
            windows=(Window.parse("22:00-06:00"),),
            bytes_a_day=5_000_000,
            bytes_a_month=10**9,
            interface="wwan0",
        ),
    )
    path = tmp_path / "node.toml"
    node.save(path)
    assert NodeFile.load(path) == node
    assert node.host_port == ("2001:db8::7", 8443)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert 'ca = "pki/ca.crt"' in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["node.toml"]


def test_a_saved_file_can_be_moved_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    node = NodeFile.load(write(tmp_path, MINIMAL))
    moved = dataclasses.replace(node, ca=tmp_path / "old" / "ca.crt")
    moved.save(tmp_path / "old" / "node.toml")
    (tmp_path / "old").rename(tmp_path / "new")
    assert NodeFile.load(tmp_path / "new" / "node.toml").ca == tmp_path / "new/ca.crt"


def test_an_empty_metered_table_is_a_metered_link(tmp_path: Path) -> None:
    node = NodeFile.load(write(tmp_path, MINIMAL + "\n[metered]\n"))
    assert node.metered == Metered()
    node.save(tmp_path / "again.toml")
    assert NodeFile.load(tmp_path / "again.toml") == node


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('address = "fleet.example:8443"', "", "[server] address is missing"),
        ("fleet.example:8443", "https://fleet.example", "without https://"),
        ("fleet.example:8443", "fleet.example", "host:port"),
        ("fleet.example:8443", "fleet.example:0", "host:port"),
        ("fleet.example:8443", "2001:db8::7:8443", "[2001:db8::7]:8443"),
        ('"ca.crt"', "3", "[server] ca is 3"),
        ('"ca.crt"', '""', "[server] ca is empty"),
        ("[server]", "[serve]", "has no table [server]"),
        ("partition-id = 7", "partition-id = 40", "write one from 0 to 39"),
        ("partition-id = 7", 'partition-id = "7"', "[device] partition-id is '7'"),
        ("partition-id = 7", "partition-id = true", "partition-id is True"),
        ("partition-id = 7", "partition_id = 7", "[device] partition-id is missing"),
        ("partition-id = 7", "partition-id = 7\nport = 70000", "[device] port"),
        (
            "partition-id = 7",
            "partition-id = 7\nsate-dir = 1",
            "sate-dir is no",
        ),
        ("jetson-07", "jetson 07", "[device] name"),
        ("[device]", "[device", "is no TOML"),
        ("[device]", "[extra]\n[device]", "[extra] is no setting"),
        ("[device]", "[node-config]\npartition-id = 1\n[device]", "[device]; write it"),
        ("[device]", "[node-config]\nthreads = 1\n[device]", "belongs to [policy]"),
        ("[device]", "[node-config]\na = [1]\n[device]", "[node-config] a is list"),
        ("[device]", "[node-config]\n'a b' = 1\n[device]", "'a b'"),
        ("[device]", "[node-config]\na = 'x\"'\n[device]", "holds a quote"),
        ("[device]", "[policy]\ntemperature = 200\n[device]", "[policy] temperature"),
        ("[device]", "[policy]\nbattery = -1\n[device]", "percent from 0 to 100"),
        ("[device]", "[policy]\nthreads = -1\n[device]", "[policy] threads"),
        ("[device]", "[policy]\ngpu = 'yes'\n[device]", '"required"'),
        ("[device]", "[policy]\nheat = 3\n[device]", "[policy] heat is no setting"),
        ("[device]", "[metered]\nwindows = ['22-6']\n[device]", "22:00-06:00"),
        ("[device]", "[metered]\nwindows = ['22:00-22:00']\n[device]", "whole day"),
        ("[device]", "[metered]\nwindows = ['22:00-24:30']\n[device]", "24-hour"),
        ("[device]", "[metered]\nwindows = '22:00-06:00'\n[device]", "write a list"),
        ("[device]", "[metered]\nbytes-a-day = '5 fish'\n[device]", '"50 MB"'),
        ("[device]", "[metered]\nbytes-a-day = -5\n[device]", "bytes-a-day is -5"),
        ("[device]", "[metered]\ninterface = '../x'\n[device]", "`ip link`"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in MINIMAL
    path = write(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises(NodeFileError) as caught:
        NodeFile.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NodeFileError, match="flwr-caesar join"):
        NodeFile.load(tmp_path / "node.toml")


def test_a_file_that_is_no_text_is_said_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NodeFileError, match="cannot be read"):
        NodeFile.load(tmp_path / "node.toml")


def test_sizes_may_have_units(tmp_path: Path) -> None:
    table = '\n[metered]\nbytes-a-day = "1.5 MB"\nbytes-a-month = 40_000_000\n'
    metered = NodeFile.load(write(tmp_path, MINIMAL + table)).metered
    assert metered == Metered(bytes_a_day=1_500_000, bytes_a_month=40_000_000)
