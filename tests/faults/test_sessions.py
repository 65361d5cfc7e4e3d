"""The harness finds nothing in the rules, and finds it when a rule is broken."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flwr_caesar.cli import main
from flwr_caesar.faults import plan
from flwr_caesar.faults.sessions import run_faults
from flwr_caesar.sync import device
from flwr_caesar.sync.server import ServerSession

from .broken import MISJUDGING, forgetting


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
            reply = replace(reply, nonce=request.nonce, order=request.order)
        return accept(self, node_id, reply, info)

    def lenient(self, *arguments):
        reason = why_not(self, *arguments)
        return "" if rule in reason else reason

    monkeypatch.setitem(plan.DEVICE_EVENTS, "device-copied", 0.03)
    monkeypatch.setattr(ServerSession, "accept", credulous)
    monkeypatch.setattr(ServerSession, "_why_not", lenient)
    assert any(
        run_faults(seed=seed, devices=20, rounds=30).violations for seed in range(12)
    )


def test_command_prints_a_report(capsys):
    assert main(["faults", "--devices", "5", "--rounds", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["violations"] == []
    assert report["injected"] == sum(report["faults"].values()) > 0


def test_command_fails_on_a_violation_and_says_how_to_replay(capsys, monkeypatch):
    monkeypatch.setattr(device, "settle", forgetting)
    assert main(["faults", "--seed", "3", "--devices", "10", "--rounds", "30"]) == 1
    assert "replay: flwr-caesar faults --seed 3" in capsys.readouterr().out
