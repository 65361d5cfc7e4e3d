"""The server's and the device's commands, as far as they need no SuperLink."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from flwr_caesar.cli import main
from flwr_caesar.deploy import join_command
from flwr_caesar.deploy.control import Node
from flwr_caesar.deploy.device_status import DeviceStatus
from flwr_caesar.deploy.fleet import Device, Fleet, Seen
from flwr_caesar.deploy.fleet_report import rows, table
from flwr_caesar.deploy.machine import machine_digest
from flwr_caesar.deploy.network import NetworkError, parse_rate
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.server_folder import ServerFolder
from flwr_caesar.deploy.ticket import Ticket


@pytest.fixture
def server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ServerFolder:
    """Return a server's folder, which commands take for theirs."""
    folder = ServerFolder(tmp_path / "server")
    monkeypatch.setenv("FLWR_CAESAR_SERVER", str(folder.path))
    monkeypatch.setattr("flwr_caesar.deploy.units.installable", lambda: False)
    # Nothing listens there.
    ports = ("--superlink-port", "1", "--metrics-port", "2")
    assert main(["deploy", "server", "--address", "localhost", *ports]) == 0
    capsys.readouterr()
    return folder


def test_a_command_on_no_server_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLWR_CAESAR_SERVER", str(tmp_path / "none"))
    for command in (
        ["fleet", "status"],
        ["enrol", "ticket", "a"],
        ["deploy", "gate"],
        ["deploy", "serve"],
        ["deploy", "superlink"],
        ["deploy", "renew"],
    ):
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert "deploy server" in error, command
        assert "backup" not in error, command
        assert "Traceback" not in error


def test_making_a_server_again_changes_what_is_said_and_keeps_the_rest(
    server: ServerFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["deploy", "server", "--address", "10.0.0.7", "--address", "localhost"]
    assert main([*command, "--port", "9443"]) == 0
    assert "kept the fleet" in capsys.readouterr().out
    assert server.settings.address == "10.0.0.7:9443"
    assert server.settings.superlink_port == 1
    assert main([*command, "--port", "1"]) == 1
    assert "are the same" in capsys.readouterr().err
    assert main([*command, "--port", "70000"]) == 1
    assert "no port" in capsys.readouterr().err
    assert main(["deploy", "server", "--address", "https://x"]) == 1
    assert "without scheme and port" in capsys.readouterr().err
    assert server.settings.address == "10.0.0.7:9443"


def test_tickets_are_lines_or_files(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enrol", "ticket", "jetson-07"]) == 0
    ticket = Ticket.from_text(capsys.readouterr().out)
    assert (ticket.name, ticket.address) == ("jetson-07", "localhost:8443")
    output = tmp_path / "tickets"
    command = ["enrol", "ticket", "jetson-08", "--count", "40", "--partitions", "48"]
    assert main([*command, "--output", str(output)]) == 0
    files = sorted(output.iterdir())
    assert [files[0].name, files[-1].name] == ["jetson-08.ticket", "jetson-47.ticket"]
    assert files[0].stat().st_mode & 0o077 == 0
    last = Ticket.from_text(files[-1].read_text())
    assert (last.partition_id, last.num_partitions) == (40, 48)


def test_tickets_are_qr_codes_too(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("segno")
    assert main(["enrol", "ticket", "phone-01", "--qr"]) == 0
    line, code = capsys.readouterr().out.split("\n", 1)
    assert Ticket.from_text(line).name == "phone-01"
    assert code.count("\n") > 30
    output = ["--count", "2", "--output", str(tmp_path / "tickets")]
    assert main(["enrol", "ticket", "phone-02", "--qr", *output]) == 0
    pictures = sorted((tmp_path / "tickets").glob("*.svg"))
    assert [path.stem for path in pictures] == ["phone-02", "phone-03"]
    assert pictures[0].stat().st_mode & 0o077 == 0


def test_without_its_library_no_ticket_is_spent_on_a_qr_code(
    server: ServerFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert main(["enrol", "ticket", "phone-01", "--qr"]) == 1
    assert "pip install 'flwr-caesar[qr]'" in capsys.readouterr().err
    assert main(["enrol", "ticket", "phone-01"]) == 0


def test_renewal_only_if_it_is_time(
    server: ServerFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = server.gate_identity.read_bytes()
    assert main(["deploy", "renew", "--if-days-left", "60"]) == 0
    assert "not renewed" in capsys.readouterr().out
    assert server.gate_identity.read_bytes() == before
    assert main(["deploy", "renew", "--if-days-left", "400"]) == 0
    assert server.gate_identity.read_bytes() != before


def test_a_device_sets_itself_up_without_a_connection(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["enrol", "ticket", "jetson-07", "--partition", "7", "--partitions", "40"])
    ticket = capsys.readouterr().out.strip()
    device, request = tmp_path / "device", tmp_path / "jetson-07.json"
    join = ["join", ticket, "--folder", str(device), "--request", str(request)]
    assert main(join) == 0
    node = NodeFile.load(device / "node.toml")
    assert (node.name, node.partition_id, node.num_partitions) == ("jetson-07", 7, 40)
    assert node.ca.read_bytes() == server.authority_certificate.read_bytes()
    assert (device / "device.key").stat().st_mode & 0o777 == 0o600
    assert main(["enrol", "approve", str(request)]) == 0
    assert "the gate registers them when the SuperLink is up" in capsys.readouterr().out
    assert [d.name for d in Fleet(server.fleet_file).devices()] == ["jetson-07"]
    assert main(["enrol", "approve", str(request)]) == 0  # nothing new
    assert main(join) == 1
    assert "is jetson-07 already" in capsys.readouterr().err


def test_joining_anew_makes_a_new_key_and_keeps_the_policy(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["enrol", "ticket", "old"])
    old = capsys.readouterr().out.strip()
    device = tmp_path / "device"
    join = ["join", "--folder", str(device), "--request", str(tmp_path / "x.json")]
    assert main([*join, old]) == 0
    key = (device / "device.key").read_bytes()
    path = device / "node.toml"
    path.write_text(path.read_text() + '\n[node-config]\ncamera = "front"\n')
    main(["enrol", "ticket", "new"])
    new = capsys.readouterr().out.strip().splitlines()[-1]
    assert main([*join, new, "--anew"]) == 0
    assert (device / "device.key").read_bytes() != key
    node = NodeFile.load(path)
    assert (node.name, node.node_config) == ("new", {"camera": "front"})


def test_a_server_that_is_away_is_explained(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["deploy", "server", "--address", "localhost", "--port", "3"])
    main(["enrol", "ticket", "jetson-07"])
    ticket = capsys.readouterr().out.splitlines()[-1]
    device = tmp_path / "device"
    assert main(["join", ticket, "--folder", str(device)]) == 1
    assert "Nothing listens on localhost:3" in capsys.readouterr().err
    assert not (device / "node.toml").exists()
    # It goes on with the key that the server may have heard of.
    key = (device / "device.key").read_bytes()
    assert main(["join", ticket, "--folder", str(device)]) == 1
    assert (device / "device.key").read_bytes() == key


def test_a_mistyped_ticket_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("jetson-07", "x" * 5000, "fct1.AAAA", "\0"):
        assert main(["join", text, "--folder", str(tmp_path / "device")]) == 1
        error = capsys.readouterr().err
        assert "ticket" in error
        assert "Traceback" not in error
    with pytest.raises(SystemExit) as ended:
        main(["join"])
    assert ended.value.code == 2


def test_a_ticket_may_come_from_standard_input(
    server: ServerFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main(["enrol", "ticket", "jetson-07"])
    text = capsys.readouterr().out

    class Input:
        @staticmethod
        def readline() -> str:
            return text

    monkeypatch.setattr(join_command.sys, "stdin", Input)
    command = ["join", "-", "--folder", str(tmp_path / "device")]
    assert main([*command, "--request", str(tmp_path / "x.json")]) == 0


def test_the_server_is_added_to_flowers_configuration_once(
    server: ServerFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "flower"
    home.mkdir()
    monkeypatch.setenv("FLWR_HOME", str(home))
    path = home / "config.toml"
    path.write_text('# mine\n[superlink]\ndefault = "local"\n')
    assert main(["fleet", "connect"]) == 0
    once = path.read_text()
    assert once.startswith("# mine\n")
    added = tomllib.loads(once)["superlink"]["fleet"]
    assert added["address"] == "127.0.0.1:1"
    assert Path(added["root-certificates"]).is_file()
    assert main(["fleet", "connect"]) == 0
    assert path.read_text() == once
    path.write_text('[superlink.fleet]\naddress = "elsewhere:1"\n')
    assert main(["fleet", "connect"]) == 1
    assert "choose one by --name" in capsys.readouterr().err


def device(name: str, key: bytes, node_id: int | None = None) -> Device:
    return Device(
        name=name,
        public_key=key,
        machine=None,
        partition_id=0,
        num_partitions=3,
        enrolled_at=0.0,
        node_id=node_id,
    )


def test_the_status_brings_together_what_is_known() -> None:
    told = DeviceStatus(version="0.1.0", power_mode="15W", state="too hot")
    (header,) = told.to_header().values()
    seen = {
        b"a": Seen(
            last_seen=990.0,
            bytes_up=1_500_000,
            bytes_down=999,
            flower_version="1.41.0",
            status=header,
        )
    }
    devices = [device("a", b"a", 2**64 - 1), device("b", b"b")]
    nodes = {b"a": Node(2**64 - 1, "a", "online")}
    first, second = rows(devices, seen, nodes, now=1000.0)
    assert (first.state, first.told, first.last_seen) == ("online", "too hot", 10.0)
    assert (second.state, second.last_seen) == ("not registered yet", None)
    assert json.dumps(first.to_json()).count(str(2**64 - 1)) == 1
    lines = table([first, second]).splitlines()
    assert lines[1].split("  ")[0] == "a"
    for shown in ("online: too hot", "10 s ago", "15W", "1.5 MB", "999 B", "0/3"):
        assert shown in lines[1]
    assert "never" in lines[2]
    assert [row.state for row in rows(devices, seen, None, now=0.0)] == ["unknown"] * 2


def test_nobody_knows_states_while_the_superlink_is_down(
    server: ServerFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "status"]) == 0
    out = capsys.readouterr().out
    assert "no devices yet" in out
    assert "the SuperLink does not answer" in out
    assert main(["fleet", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["fleet", "remove", "nobody"]) == 1
    assert "no device 'nobody'" in capsys.readouterr().err


def test_a_machine_is_known_by_its_board_before_its_image(tmp_path: Path) -> None:
    assert machine_digest(tmp_path) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    assert machine_digest(tmp_path) is None
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef\n")
    image = machine_digest(tmp_path)
    assert image is not None
    assert "0123456789abcdef" not in image
    board = tmp_path / "proc/device-tree"
    board.mkdir(parents=True)
    (board / "serial-number").write_bytes(b"1421321008181\0")
    assert machine_digest(tmp_path) not in (None, image)


def test_rates_are_as_tc_has_them() -> None:
    rates = [parse_rate(text) for text in ("500kbit", "2mbit", "1.5MBIT", "1gbit")]
    assert rates == [0.5, 2.0, 1.5, 1000.0]
    for bad in ("", "2", "2 mb", "0mbit", "-1mbit"):
        with pytest.raises(NetworkError, match="500kbit or 2mbit"):
            parse_rate(bad)


def test_the_help_of_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["deploy"],
        ["deploy", "server"],
        ["deploy", "lab"],
        ["enrol"],
        ["enrol", "ticket"],
        ["fleet"],
        ["join"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        assert "usage: flwr-caesar" in capsys.readouterr().out
