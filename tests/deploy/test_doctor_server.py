"""The doctor on the server's side, without a server."""

from __future__ import annotations

import time
from pathlib import Path

from flwr_caesar.deploy.doctor.finding import Level
from flwr_caesar.deploy.doctor.server import (
    check_certificate,
    check_fleet,
    check_listening,
    check_secrets,
    check_server,
    check_synchronized,
)
from flwr_caesar.deploy.fleet import Fleet, Seen
from flwr_caesar.deploy.pki import issue, make_authority
from flwr_caesar.deploy.server_folder import ServerFolder, ServerSettings

from . import boards

AUTHORITY = make_authority()
SETTINGS = ServerSettings(addresses=("fleet.example", "10.0.0.7"), superlink_port=8000)
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue\n"


def test_a_certificate_has_to_name_every_address_and_to_last(tmp_path: Path) -> None:
    file = tmp_path / "gate.pem"
    (missing,) = check_certificate("certificate", file, SETTINGS.addresses)
    assert missing.level is Level.FAILURE
    for names, days, level, words in (
        (["fleet.example", "10.0.0.7"], 90, Level.OK, "valid for 90 days"),
        (["fleet.example", "10.0.0.7"], 12, Level.WARNING, "It expires in 12 days"),
        (["fleet.example"], 90, Level.FAILURE, "It is not for 10.0.0.7, only for fle"),
    ):
        file.write_bytes(issue(AUTHORITY, names, days=days).certificate_pem)
        (found,) = check_certificate("certificate", file, SETTINGS.addresses)
        assert (found.level, found.text[: len(words)]) == (level, words)


def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    folder.authority_key.write_bytes(b"")
    folder.authority_key.chmod(0o600)
    (found,) = check_secrets(folder)
    assert found.level is Level.OK
    folder.authority_key.chmod(0o640)
    (found,) = check_secrets(folder)
    assert found.level is Level.FAILURE
    assert found.fix == f"chmod 600 {folder.authority_key}"


def test_a_superlink_beyond_loopback_is_open_to_all(tmp_path: Path) -> None:
    local = "   0: 0100007F:1F40 00000000:0000 0A 0:0\n"
    outgoing = "   1: 0700000A:1F40 00000000:0000 01 0:0\n"
    boards.put(tmp_path, "proc/net/tcp", HEAD + local + outgoing)
    assert check_listening(SETTINGS, tmp_path).level is Level.OK
    everywhere = "   0: 00000000000000000000000000000000:1F40 0:0 0A 0:0\n"
    boards.put(tmp_path, "proc/net/tcp6", HEAD + everywhere)
    found = check_listening(SETTINGS, tmp_path)
    assert found.level is Level.FAILURE
    assert "whoever reaches it controls the fleet" in found.text


def test_a_clock_that_nothing_sets(tmp_path: Path) -> None:
    assert check_synchronized(tmp_path).level is Level.WARNING
    boards.put(tmp_path, "run/systemd/timesync/synchronized", "")
    assert check_synchronized(tmp_path).level is Level.OK


def test_devices_that_are_silent_or_never_came(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    fleet = Fleet.create(folder.fleet_file)
    now = time.time()
    (found,) = check_fleet(folder, now)
    assert found.level is Level.OK
    with fleet.transaction() as database:
        for name in ("a", "b", "c"):
            database.execute(
                "INSERT INTO device VALUES (?, ?, ?, 0, 3, 0, NULL)",
                (name, name.encode(), name),
            )
    fleet.saw({b"a": Seen(last_seen=now - 5), b"b": Seen(last_seen=now - 7300)})
    (found,) = check_fleet(folder, now)
    assert found.level is Level.WARNING
    assert found.text == "silent: b (2 h); never seen: c"


def test_a_folder_that_is_no_servers(tmp_path: Path) -> None:
    found = list(check_server(tmp_path, tmp_path))
    assert found[-1].level is Level.FAILURE
    assert "flwr-caesar deploy server --address NAME" in found[-1].text
