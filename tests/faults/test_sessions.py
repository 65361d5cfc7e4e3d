"""The harness finds nothing in the rules, and finds it when a rule is broken."""

from __future__ import annotations

import fcntl
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from flwr_caesar.cli import main
from flwr_caesar.faults import odds, session_devices
from flwr_caesar.faults.sessions import run_faults
from flwr_caesar.sync import device
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.server import ServerSession

from .broken import (
    MISJUDGING,
    forgetting,
    minding_the_machine,
    taking_unreadable_for_broken,
)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_law_holds(seed):
    report = run_faults(seed=seed, devices=30, rounds=60)
    assert report.violations == ()
    assert report.injected > 1000
    assert report.applied > 300
    assert report.changes > 300


def test_a_seed_replays():
    assert run_faults(seed=4, devices=8, rounds=8) == run_faults(
        seed=4, devices=8, rounds=8
    )


@pytest.mark.parametrize("broken", MISJUDGING)
def test_a_broken_device_is_found(monkeypatch, broken):
    monkeypatch.setattr(device, "settle", broken)
    assert run_faults(seed=1, devices=20, rounds=30).violations


@pytest.mark.parametrize("rule", ["another copy", "another node", "another request"])
def test_a_server_that_checks_less_is_found(monkeypatch, rule):
    accept, why_not = ServerSession.accept, ServerSession._why_not

    def credulous(self, node_id, reply, info=None):
        request = self._open.get(node_id)
        if request and rule == "another request":
            reply = replace(reply, nonce=request.nonce)
        return accept(self, node_id, reply, info)

    def lenient(self, *arguments):
        reason = why_not(self, *arguments)
        return "" if rule in reason else reason

    monkeypatch.setitem(odds.DEVICE_EVENTS, "device-copied", 0.03)
    monkeypatch.setattr(ServerSession, "accept", credulous)
    monkeypatch.setattr(ServerSession, "_why_not", lenient)
    assert any(
        run_faults(seed=seed, devices=20, rounds=30).violations for seed in range(12)
    )


# --- disks, machines and clocks --------------------------------------------------


@pytest.fixture
def _failing_disks(monkeypatch):
    monkeypatch.setattr(session_devices, "_ONE_DISK_IN", 1)
    for kind in odds.DISK_FAULTS:
        monkeypatch.setitem(odds.DISK_FAULTS, kind, 0.2)


def on_failing_disks():
    return run_faults(seed=1, devices=6, rounds=20)


@pytest.mark.usefixtures("_failing_disks")
def test_failing_disks_and_new_machines_cost_nothing():
    report = on_failing_disks()
    assert report.violations == ()
    assert report.met["identity is the token"]["disk-moved"] > 5
    assert report.met["left as it is"]["disk-read-error"] > 5
    assert report.met["refused before it counts"]["disk-write-error"] > 5
    assert report.met["the lock ends with its process"]["app-killed-with-child"] > 5


@pytest.mark.usefixtures("_failing_disks")
def test_a_store_that_takes_unreadable_for_broken_is_found(monkeypatch):
    monkeypatch.setattr(FolderStore, "load", taking_unreadable_for_broken())
    (violation, *_) = on_failing_disks().violations
    assert "gives another state after disk-read-error" in violation


@pytest.mark.usefixtures("_failing_disks")
@pytest.mark.parametrize(
    "what",
    [
        lambda root: root.stat().st_ino,
        lambda _: Path("/etc/machine-id").read_text(),
        lambda _: socket.gethostname(),
    ],
    ids=["inode", "machine id", "host name"],
)
def test_a_store_that_minds_where_it_is_is_found(monkeypatch, what):
    monkeypatch.setattr(FolderStore, "load", minding_the_machine(what=what))
    (violation, *_) = on_failing_disks().violations
    assert "gives another state after disk-moved" in violation


@pytest.mark.usefixtures("_failing_disks")
def test_a_lock_that_a_forked_child_keeps_is_found(monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", fcntl.flock)
    (violation, *_) = on_failing_disks().violations
    assert "a disk refuses after app-killed-with-child" in violation


def test_a_server_whose_incarnations_follow_a_wrong_clock_is_found(monkeypatch):
    monkeypatch.setitem(odds.SERVER_FAULTS, "server-clock-stays-back", 0.3)
    begin = ServerSession.__init__

    def trusting(self, store, *, now, **rest):
        begin(self, store, now=now, **rest)
        self._head = replace(self._head, incarnation=max(now, 1))

    assert run_faults(seed=2, devices=20, rounds=40).violations == ()
    monkeypatch.setattr(ServerSession, "__init__", trusting)
    assert run_faults(seed=2, devices=20, rounds=40).violations


# --- the command -----------------------------------------------------------------


def test_the_report_says_which_guard_met_which_fault(capsys):
    main(["faults", "--seed", "1", "--devices", "20", "--rounds", "10"])
    out = capsys.readouterr().out
    assert "met by upload returns to the residual: " in out
    met = run_faults(seed=1, devices=20, rounds=10).met
    assert set(met["server: damaged"]) >= {"corrupt-header", "corrupt-frame"}
    assert met["server: answers another request"]["hostile-reply"] > 0
    assert met["header's checksum"]["corrupt-header"] > 0


def test_command_prints_a_report(capsys):
    assert main(["faults", "--devices", "5", "--rounds", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["violations"] == []
    assert report["injected"] == sum(report["faults"].values()) > 0


def test_command_fails_on_a_violation_and_says_how_to_replay(capsys, monkeypatch):
    monkeypatch.setattr(device, "settle", forgetting)
    assert main(["faults", "--seed", "3", "--devices", "10", "--rounds", "30"]) == 1
    assert "replay: flwr-caesar faults --seed 3" in capsys.readouterr().out
