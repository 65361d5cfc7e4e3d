"""A fleet in network namespaces: tickets, keys, the gate, runs, and what must fail."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flwr_caesar.deploy.lab import Lab
from flwr_caesar.deploy.network import SERVER, Link, why_not
from flwr_caesar.deploy.pki import load_certificate, make_authority
from flwr_caesar.deploy.server_folder import CONNECTION
from flwr_caesar.deploy.ticket import Ticket
from flwr_caesar.runner.superlink import executable

pytestmark = pytest.mark.servers

NODES = 3
MBIT = 20.0
RUN_SECONDS = 600.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a fleet of three running devices, and a link for somebody else."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("lab")
    with Lab([MBIT] * (NODES + 1), home=home) as lab:
        lab.start_server()
        tickets = home / "tickets"
        lab.enrol(
            "ticket", "jetson-07", "--count", str(NODES), "--output", str(tickets)
        )
        for link in lab.links[:NODES]:
            ticket = tickets / f"jetson-{7 + link.number:02d}.ticket"
            joined = lab.join(link, str(ticket))
            assert joined.returncode == 0, joined.stderr
            lab.start_node(link)
        lab.wait_online(NODES)
        yield lab


@pytest.fixture
def stranger(lab: Lab) -> Link:
    """Return the link of a device that is not in the fleet."""
    return lab.links[NODES]


def status(lab: Lab) -> dict[str, dict[str, object]]:
    rows = json.loads(lab.on_server("fleet", "status", "--json"))
    return {row["name"]: row for row in rows}


def caesar(lab: Lab, folder: Path, rounds: int) -> list[str]:
    return [
        *(executable("flwr-caesar"), "run", f"connection={CONNECTION}"),
        *("strategy=caesar", f"rounds={rounds}", "federation=local", "model=mlp"),
        f"federation.num_supernodes={NODES}",
        "data.partition.kind=iid",
        f"hydra.run.dir={folder}",
    ]


def http_status(lab: Lab, link: Link, method: str, url: str) -> int:
    """Return the answer's status on a device; 0 if there is none."""
    done = lab.run(
        link.namespace,
        *(executable("python"), "-c", _ASK, method, url),
        str(lab.folder.authority_certificate),
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


_ASK = """\
import ssl, sys, urllib.error, urllib.request as request
context = ssl.create_default_context(cafile=sys.argv[3])
data = b"" if sys.argv[1] == "POST" else None
try:
    asked = request.Request(sys.argv[2], data=data, method=sys.argv[1])
    print(request.urlopen(asked, timeout=10, context=context).status)
except urllib.error.HTTPError as err:
    print(err.code)
except OSError:
    print(0)
"""


def served_serial(lab: Lab, link: Link) -> int:
    done = lab.run(
        link.namespace,
        *(executable("python"), "-c", _SERIAL, SERVER, str(lab.folder.settings.port)),
    )
    return load_certificate(done.stdout.encode()).serial_number


_SERIAL = """\
import ssl, sys
print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))
"""


def renew_in_the_middle(lab: Lab, stranger: Link, run: Path) -> None:
    """Train for three rounds, with a new certificate after the first."""
    first = served_serial(lab, stranger)
    nodes = {link.number: lab.log(f"node-{link.number}") for link in lab.links[:NODES]}
    process = lab.spawn("renewed", lab.server, *caesar(lab, run, 3))
    events = run / "events.jsonl"
    lab.wait(
        "the first round",
        lambda: events.exists() and len(events.read_text().splitlines()) >= 2,
        log="renewed",
    )
    lab.on_server("deploy", "renew")
    lab.wait(
        "the new certificate",
        lambda: served_serial(lab, stranger) != first,
        log="server",
    )
    assert process.poll() is None, "the run ended before the certificate was new"
    assert process.wait(timeout=RUN_SECONDS) == 0
    lab.end("renewed")
    for number, before in nodes.items():
        later = lab.log(f"node-{number}")[len(before) :]
        assert "Starting Flower SuperNode" not in later


def test_a_run_learns_while_the_certificate_changes_and_the_gate_counts_its_bytes(
    lab: Lab, stranger: Link, tmp_path: Path
) -> None:
    gate_before, links_before = status(lab), lab.carried()
    renew_in_the_middle(lab, stranger, tmp_path / "run")
    rounds = list(csv.DictReader((tmp_path / "run" / "rounds.csv").open()))
    assert len(rounds) == 4
    assert float(rounds[-1]["accuracy"]) > 0.85
    assert all(int(row["dropped"]) == 0 for row in rounds)
    devices = list(csv.DictReader((tmp_path / "run" / "devices.csv").open()))
    # A board was watched under each, as far as this machine has sensors.
    assert all(float(row["seconds_measured"]) > 0 for row in devices)
    assert all(int(row["bytes_written"]) > 0 for row in devices)
    written = status(lab)
    # The gate writes down what it counted every few seconds.
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(6)
        previous, written = written, status(lab)
        if written["jetson-07"]["bytes_up"] != previous["jetson-07"]["bytes_up"]:
            break
    after = lab.carried()
    for i, link in enumerate(lab.links[:NODES]):
        name = f"jetson-{7 + link.number:02d}"
        assert written[name]["state"] == "online"
        assert written[name]["flower_version"]
        assert written[name]["partition_id"] == i
        counted = [
            int(str(written[name][key])) - int(str(gate_before[name][key]))
            for key in ("bytes_down", "bytes_up")
        ]
        carried = [a - b for a, b in zip(after[i], links_before[i], strict=True)]
        for direction in (0, 1):
            # TCP, TLS and acknowledgements of the other direction come on top.
            assert counted[direction] < carried[direction]
        assert sum(counted) > 0.4 * sum(carried)


def test_a_device_reaches_its_own_calls_and_nothing_else(
    lab: Lab, stranger: Link
) -> None:
    gate = f"https://{SERVER}:{lab.folder.settings.port}"
    assert http_status(lab, stranger, "GET", f"{gate}/health") == 200
    for path in ("control/list-nodes", "control/start-run", "control/register-node"):
        assert http_status(lab, stranger, "POST", f"{gate}/v1/{path}") == 404
    for path in ("runtime/acquire-task", "fleet/nothing", "fleet/..%2Fcontrol%2Fstart"):
        assert http_status(lab, stranger, "POST", f"{gate}/v1/{path}") == 404
    for path in ("docs", "openapi.json", "metrics", "v1/control/list-runs"):
        assert http_status(lab, stranger, "GET", f"{gate}/{path}") == 404
    for call in ("register-node", "unregister-node"):
        assert http_status(lab, stranger, "POST", f"{gate}/v1/fleet/{call}") == 403
    # It is passed on, and Flower finds no Protobuf in it.
    assert http_status(lab, stranger, "POST", f"{gate}/v1/fleet/pull-messages") == 415
    settings = lab.folder.settings
    for port in (settings.superlink_port, settings.metrics_port):
        for scheme in ("http", "https"):
            url = f"{scheme}://{SERVER}:{port}/health"
            assert http_status(lab, stranger, "GET", url) == 0


def test_a_ticket_is_good_for_one_device_once(
    lab: Lab, stranger: Link, tmp_path: Path
) -> None:
    used = (lab.home / "tickets" / "jetson-08.ticket").read_text()
    thief = lab.join(stranger, used, folder=tmp_path / "thief", machine="thief")
    assert thief.returncode == 1
    assert "used already, by another device, which is jetson-08" in thief.stderr
    assert not (tmp_path / "thief" / "node.toml").exists()

    fresh = lab.enrol("ticket", "spare").strip()
    again = lab.join(stranger, fresh, folder=tmp_path / "again", machine="lab 1")
    assert again.returncode == 1
    assert "This machine is in the fleet as jetson-08" in again.stderr

    copied = tmp_path / "copied"
    copied.mkdir()
    key = (lab.device_folder(lab.links[0]) / "device.key").read_bytes()
    (copied / "device.key").write_bytes(key)
    copy = lab.join(stranger, fresh, folder=copied, machine="copy")
    assert copy.returncode == 1
    assert "This key is in the fleet as jetson-07" in copy.stderr
    assert "spare" not in status(lab)


def test_an_expired_ticket_is_refused(lab: Lab, stranger: Link, tmp_path: Path) -> None:
    ticket = lab.enrol("ticket", "late", "--days", "0.00001").strip()
    time.sleep(1.5)
    late = lab.join(stranger, ticket, folder=tmp_path / "late", machine="late")
    assert late.returncode == 1
    assert "This ticket expired" in late.stderr
    assert "late" not in status(lab)


def test_a_server_that_is_not_the_tickets_is_told_nothing(
    lab: Lab, stranger: Link, tmp_path: Path
) -> None:
    real = Ticket.from_text(lab.enrol("ticket", "careful"))
    elsewhere = replace(real, authority=make_authority().certificate)
    careful = lab.join(
        stranger, elsewhere.to_text(), folder=tmp_path / "careful", machine="careful"
    )
    assert careful.returncode == 1
    assert "is not the server that this ticket is for" in careful.stderr
    assert elsewhere.fingerprint in careful.stderr
    # The real one is still good: its token was not sent to a stranger.
    kept = lab.join(
        stranger, real.to_text(), folder=tmp_path / "careful", machine="careful"
    )
    assert kept.returncode == 0, kept.stderr
    lab.on_server("fleet", "remove", "careful")


def test_a_device_without_a_connection_is_let_in_by_a_file(
    lab: Lab, stranger: Link, tmp_path: Path
) -> None:
    folder, request = tmp_path / "offline", tmp_path / "offline.json"
    join = [executable("flwr-caesar"), "join", "--folder", str(folder)]
    join += ["--machine", "offline"]
    asked = lab.run(
        stranger.namespace, *join, "--request", str(request), "--name", "offline"
    )
    assert asked.returncode == 0, asked.stderr
    damaged = tmp_path / "damaged.json"
    damaged.write_text(request.read_text().replace('"offline"', '"online"'))
    refused = lab.run(
        lab.server, executable("flwr-caesar"), "enrol", "approve", str(damaged)
    )
    assert refused.returncode == 1
    assert "changed after the device had signed it" in refused.stderr
    lab.enrol("approve", str(request))
    joined = lab.run(stranger.namespace, *join, str(request.with_suffix(".ticket")))
    assert joined.returncode == 0, joined.stderr
    assert "but:" not in joined.stdout
    assert status(lab)["offline"]["state"] == "registered"
    lab.on_server("fleet", "remove", "offline")
    assert "offline" not in status(lab)
    # The key is spent, also with a new ticket.
    (folder / "node.toml").unlink()
    ticket = lab.enrol("ticket", "offline").strip()
    back = lab.run(stranger.namespace, *join, ticket)
    assert back.returncode == 1
    assert "This key was removed from the fleet" in back.stderr


def test_devices_come_back_after_the_server_was_killed(
    lab: Lab, tmp_path: Path
) -> None:
    lab.kill("server")
    lab.start_server()
    lab.wait_online(NODES)
    assert lab.run_app(*caesar(lab, tmp_path / "run", 1), timeout=RUN_SECONDS) == 0


def test_devices_come_back_after_flower_lost_its_database(lab: Lab) -> None:
    before = status(lab)
    lab.end("server")
    lab.folder.database.unlink()
    lab.start_server()
    lab.wait_online(NODES)
    after = status(lab)
    assert before.keys() == after.keys()
    assert all(before[name]["node_id"] != after[name]["node_id"] for name in after)


def test_a_removed_device_can_connect_no_more(lab: Lab) -> None:
    link = lab.links[NODES - 1]
    lab.on_server("fleet", "remove", "jetson-09")
    before = len(lab.log("node-2"))
    lab.wait(
        "the removed device's words",
        lambda: "does not know this device's key" in lab.log("node-2")[before:],
        log="node-0",
    )
    # The board may come back, with a new key and its old part of the data.
    ticket = lab.enrol("ticket", "jetson-09").strip()
    folder = lab.device_folder(link)
    anew = lab.run(
        link.namespace,
        *(executable("flwr-caesar"), "join", ticket, "--anew"),
        *("--folder", str(folder), "--machine", f"lab {link.number}"),
    )
    assert anew.returncode == 0, anew.stderr
    assert status(lab)["jetson-09"]["partition_id"] == NODES - 1
