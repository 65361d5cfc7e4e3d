"""The harness finds nothing in the strategies, and finds it when one is broken."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import replace

import numpy as np
import pytest

from flwr_caesar.cli import main
from flwr_caesar.clients import handling
from flwr_caesar.clients.cached_reply import CachedReply
from flwr_caesar.clients.shared_prediction import SharedPrediction
from flwr_caesar.codec import CodecState, Layout, update_layout
from flwr_caesar.faults import grid, odds, poison
from flwr_caesar.faults.strategies import run_strategy_faults
from flwr_caesar.strategies import Guard, metrics
from flwr_caesar.strategies.fedcomloc_method import FedComLocMethod
from flwr_caesar.strategies.framed import FrameExchange
from flwr_caesar.strategies.intake import Intake
from flwr_caesar.strategies.mean import RunningMean
from flwr_caesar.strategies.shared_memory import SharedMemory
from flwr_caesar.strategies.uplink_memory import UplinkMemory
from flwr_caesar.sync import device, settle, short
from flwr_caesar.sync.context_store import ContextStore
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.sync.server import ServerSession
from flwr_caesar.transport import report, seconds

from .broken import MISJUDGING, deaf, taking_unreadable_for_broken
from .known import KNOWN

SIZE = {"devices": 8, "rounds": 10}
SEED = 4  # in which much happens


@pytest.mark.parametrize("name", KNOWN)
def test_the_laws_hold(name):
    report = run_strategy_faults(name, seed=SEED, **SIZE)
    assert report.violations == ()
    assert report.injected > 30
    assert report.applied > 30
    assert bool(report.predicted) == (KNOWN[name].remembers or KNOWN[name].shares)
    assert bool(report.moved) == KNOWN[name].has_control


@pytest.fixture
def sixteen_bits(monkeypatch):
    """Keep the residual of the harness's small model as that of a large one."""
    monkeypatch.setattr(short, "LEAST_BYTES", 0)
    monkeypatch.setattr(short, "EXACT_BELOW", 1)


@pytest.mark.usefixtures("sixteen_bits")
@pytest.mark.parametrize("name", ["topk", "caesar"])
def test_the_laws_hold_of_a_residual_in_16_bits(name):
    report = run_strategy_faults(name, seed=SEED, **SIZE)
    assert report.violations == ()
    assert report.applied > 30


@pytest.mark.usefixtures("sixteen_bits")
def test_a_residual_that_drops_more_than_is_written_down_is_found(monkeypatch):
    right = short.Short.of
    monkeypatch.setattr(
        short.Short, "of", lambda array: right(array * np.float32(0.99))
    )
    assert "is not what it computed" in found("topk")


@pytest.mark.parametrize("name", ["fedcomloc", "correlation_aware"])
def test_a_seed_replays(name):
    first, again = (run_strategy_faults(name, seed=2, **SIZE) for _ in range(2))
    assert first == again


def test_a_run_patches_no_clock_and_no_random_numbers():
    def real():
        return time.time_ns, secrets.token_bytes, secrets.randbits, os.urandom

    before, seen = real(), []
    run_strategy_faults(
        "topk", seed=SEED, **SIZE, on_round=lambda *_: seen.append(real())
    )
    assert len(seen) > SIZE["rounds"]
    assert set(seen) == {before}


def found(name: str, *, seeds: range = range(6), **size: int) -> str:
    """Return the first violation that one of some seeds finds."""
    for seed in seeds:
        report = run_strategy_faults(name, seed=seed, **{**SIZE, **size})
        if report.violations:
            return report.violations[0]
    return ""


# --- broken devices --------------------------------------------------------------


@pytest.mark.parametrize("name", ["topk", "correlation_aware", "error_bounded"])
@pytest.mark.parametrize("broken", MISJUDGING)
def test_a_device_that_misjudges_its_uploads_is_found(monkeypatch, broken, name):
    monkeypatch.setattr(device, "settle", broken)
    assert found(name)


def test_a_device_that_predicts_from_what_the_server_lacks_is_found(monkeypatch):
    def keeping(state, header, new_token):
        return settle.settle(state, replace(header, memory=bytes(7) + b"1"), new_token)

    def trusting(state, header, update, **rest):
        layout = update_layout(Layout.of(state.model))
        last = CodecState(layout, state.codec_version, state.codec_arrays)
        header = replace(header, memory=last.digest)
        return device.commit_update(state, header, update, **rest)

    monkeypatch.setattr(device, "settle", keeping)
    monkeypatch.setattr(handling, "commit_update", trusting)
    assert "an honest reply is refused" in found("error_bounded")


def test_a_device_that_forgets_what_its_waiting_upload_builds_on_is_found(monkeypatch):
    before = SharedPrediction.before

    def forgetful(self, received, content):
        waiting = received.state.pending
        nothing = replace(received, state=replace(received.state, pending=()))
        state, rest = before(self, nothing, content)
        return replace(state, pending=waiting), rest

    monkeypatch.setattr(SharedPrediction, "before", forgetful)
    assert found("cafe")


def test_a_device_that_replies_before_it_saves_is_found(monkeypatch):
    save = ContextStore.save

    def too_early(self, state):
        save(self, replace(state, pending=state.pending[:-1]))

    monkeypatch.setattr(ContextStore, "save", too_early)
    assert found("topk")


def test_a_device_that_cannot_tell_its_metrics_again_is_found(monkeypatch):
    monkeypatch.setitem(odds.DEVICE_FAULTS, "device-crash-after-write", 0.4)
    monkeypatch.setitem(odds.MESSAGE_FAULTS, "duplicate", 0.3)
    nothing = classmethod(lambda cls, state, upload: cls())
    monkeypatch.setattr(CachedReply, "beside", nothing)
    assert "an honest reply is refused" in found("topk")


# --- broken servers --------------------------------------------------------------


def test_a_server_that_forgets_its_memory_of_uploads_is_found(monkeypatch):
    monkeypatch.setattr(UplinkMemory, "get", lambda self, device, fresh: fresh)
    assert "an honest reply is refused" in found("correlation_aware")


def test_a_server_that_forgets_what_all_uploads_build_on_is_found(monkeypatch):
    monkeypatch.setattr(SharedMemory, "get", lambda self, device, fresh: fresh)
    assert "an honest reply is refused" in found("cafe")


def test_a_server_that_adds_an_update_twice_is_found(monkeypatch):
    add = RunningMean.add

    def twice(self, update, base, weight):
        again = {name: array.copy() for name, array in update.items()}
        add(self, update, base, weight)
        if not self._bases[id(base)][1] > weight:
            add(self, again, base, weight)

    monkeypatch.setattr(RunningMean, "add", twice)
    assert "the mean applied" in found("pruning")


def test_a_server_that_goes_on_with_another_model_is_found(monkeypatch):
    checkpoint = SqliteLedger.checkpoint

    def off(self):
        kept = checkpoint(self)
        if kept is None:
            return None
        model = {name: array + np.float32(0.5) for name, array in kept.model.items()}
        return replace(kept, model=model)

    monkeypatch.setattr(SqliteLedger, "checkpoint", off)
    assert "another model" in found("topk")


@pytest.mark.parametrize("name", [n for n, known in KNOWN.items() if known.finishes])
def test_a_server_that_ignores_what_its_method_finished_is_found(monkeypatch, name):
    publish = FrameExchange.publish

    def ignoring(self, phase, made):
        publish(self, phase, made)
        return made

    monkeypatch.setattr(FrameExchange, "publish", ignoring)
    assert "another model" in found(name)


def test_a_server_that_acknowledges_before_it_commits_is_found(monkeypatch):
    accept = ServerSession.accept

    def hasty(self, node_id, reply, info=None, **reported):
        verdict = accept(self, node_id, reply, info, **reported)
        if verdict.counts and reply.upload_id:
            row = self.row(node_id)
            row = replace(row, applied=(*row.applied, reply.upload_id))
            self._store.commit(self._head, [row], {node_id: row.device})
        return verdict

    monkeypatch.setattr(ServerSession, "accept", hasty)
    monkeypatch.setitem(odds.SERVER_FAULTS, "server-crash-before-commit", 0.4)
    assert "takes an upload for applied that was not" in found("topk")


@pytest.mark.parametrize("rule", ["another copy", "another node"])
def test_a_server_that_checks_less_is_found(monkeypatch, rule):
    why_not = ServerSession._why_not

    def lenient(self, *arguments):
        reason = why_not(self, *arguments)
        return "" if rule in reason else reason

    monkeypatch.setitem(odds.DEVICE_EVENTS, "device-copied", 0.05)
    monkeypatch.setattr(ServerSession, "_why_not", lenient)
    assert found("topk", seeds=range(10))


def test_a_server_that_one_reply_can_stop_is_found(monkeypatch):
    def stopping(self, phase, node_id, reason, **kwargs):
        raise ValueError(reason)

    monkeypatch.setattr(Intake, "refuse", stopping)
    assert "the server fails: ValueError" in found("topk")


@pytest.mark.parametrize("name", ["fedcomloc", "fedcomloc_global"])
def test_control_variates_that_not_all_have_moved_are_found(monkeypatch, name):
    monkeypatch.setattr(FedComLocMethod, "_reset", lambda *_: None)
    assert "do not sum to zero" in found(name)


def test_a_server_that_does_not_wait_for_variates_to_move_is_found(monkeypatch):
    go_on = FedComLocMethod._go_on_moving

    def trusting(self, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(FedComLocMethod, "_reset", lambda *_: None)
            return go_on(self, *arguments)

    monkeypatch.setitem(odds.DEVICE_FAULTS, "device-crash-before-write", 0.3)
    monkeypatch.setattr(FedComLocMethod, "_go_on_moving", trusting)
    assert "do not sum to zero" in found("fedcomloc")


def test_control_variates_lost_with_a_device_are_found(monkeypatch):
    monkeypatch.setitem(odds.DEVICE_EVENTS, "device-deleted", 0.03)
    monkeypatch.setattr(FedComLocMethod, "_why_broken", lambda *_: "")
    assert "do not sum to zero again" in found("fedcomloc", rounds=8, seeds=range(10))


# --- the command -----------------------------------------------------------------


def test_command_prints_a_report(capsys):
    size = ["--devices", "5", "--rounds", "4"]
    assert main(["faults", "--strategy", "topk", *size, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["strategy"] == "topk"
    assert report["violations"] == []
    assert report["injected"] == sum(report["faults"].values()) > 0


def test_command_fails_on_a_violation_and_says_how_to_replay(capsys, monkeypatch):
    monkeypatch.setattr(device, "settle", deaf)
    size = ["--devices", "8", "--rounds", "12"]
    assert main(["faults", "--strategy", "topk", "--seed", "1", *size]) == 1
    out = capsys.readouterr().out
    assert "replay: flwr-caesar faults --strategy topk --seed 1 --devices 8" in out


def test_command_names_the_strategies(capsys):
    with pytest.raises(SystemExit):
        main(["faults", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert all(name in out for name in KNOWN)


# --- poison ----------------------------------------------------------------------


def met(name: str, monkeypatch, **size: int) -> dict[str, dict[str, int]]:
    """Return which guard met which poison in a run with many hostile replies."""
    monkeypatch.setitem(grid._CHANCE_HOSTILE, "hostile-reply", 0.9)
    report = run_strategy_faults(name, seed=SEED, **{**SIZE, "rounds": 25, **size})
    assert report.violations == ()
    return {
        guard: {kind: count for kind, count in kinds.items() if kind in poison.POISONS}
        for guard, kinds in report.met.items()
    }


def test_the_report_says_which_guard_met_which_poison(monkeypatch):
    found = met("topk", monkeypatch)
    assert set(found["length"]) <= {"poison-huge"}
    assert set(found["weight"]) == {"poison-weight"}
    assert set(found["labels"]) == {"hostile-labels"}
    assert set(found["seconds"]) == {"hostile-seconds"}
    assert set(found["part"]) == {"hostile-part"}
    assert set(found["used"]) == {"poison-heavy"}
    assert found["length"]["poison-huge"] > 0


def poisoned(monkeypatch) -> str:
    monkeypatch.setitem(grid._CHANCE_HOSTILE, "hostile-reply", 0.9)
    return found("topk", seeds=range(4), rounds=15)


def only(monkeypatch, kind: str) -> None:
    for each in poison.POISONS:
        monkeypatch.setitem(poison.POISONS, each, 0.7 if each == kind else 0.0)


def test_a_server_that_believes_any_length_is_found(monkeypatch):
    only(monkeypatch, "poison-huge")
    monkeypatch.setattr(Guard, "too_long", lambda *_, **__: {})
    assert "counts in spite of poison-huge" in poisoned(monkeypatch)


def test_a_server_that_believes_any_share_is_found(monkeypatch):
    only(monkeypatch, "poison-heavy")
    monkeypatch.setattr(Guard, "limited_weights", lambda _, weights: dict(weights))
    assert "the mean applied is not" in poisoned(monkeypatch)


def test_a_server_that_believes_any_weight_is_found(monkeypatch):
    only(monkeypatch, "poison-weight")
    monkeypatch.setattr(metrics, "MAX_WEIGHT", 1e18)
    assert "counts in spite of poison-weight" in poisoned(monkeypatch)


@pytest.mark.parametrize(
    ("room", "limit", "kind"),
    [
        (report, "_MAX_LABELS", "hostile-labels"),
        (seconds, "MAX_SECONDS", "hostile-seconds"),
        (report, "_MAX_PART_CHARS", "hostile-part"),
    ],
)
def test_a_server_that_believes_any_claim_is_found(monkeypatch, room, limit, kind):
    only(monkeypatch, kind)
    monkeypatch.setattr(room, limit, 1 << 2000)
    monkeypatch.setattr(poison, "_PARTS", ({"a": "x" * 5_000},))
    assert f"counts in spite of {kind}" in poisoned(monkeypatch)


# --- clocks and disks ------------------------------------------------------------


def test_a_server_whose_incarnations_follow_a_wrong_clock_is_found(monkeypatch):
    monkeypatch.setitem(odds.SERVER_FAULTS, "server-clock-stays-back", 0.3)
    begin = ServerSession.__init__

    def trusting(self, store, *, now, **rest):
        begin(self, store, now=now, **rest)
        self._head = replace(self._head, incarnation=max(now, 1))

    monkeypatch.setattr(ServerSession, "__init__", trusting)
    assert found("topk")


def test_a_device_that_takes_unreadable_for_broken_is_found(monkeypatch):
    load = ContextStore.load

    def hasty(self, lineage):
        try:
            return load(self, lineage)
        except OSError:
            return None

    monkeypatch.setattr(ContextStore, "load", hasty)
    assert "gives up without need" in found("topk")


def test_a_device_on_a_disk_that_takes_unreadable_for_broken_is_found(monkeypatch):
    monkeypatch.setattr(FolderStore, "load", taking_unreadable_for_broken())
    monkeypatch.setitem(odds.DISK_FAULTS, "disk-read-error", 0.4)
    assert "gives up without need" in found("topk")
