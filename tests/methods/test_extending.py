"""What docs/extending.md shows is a package that works."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.cli import main
from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecError, get_codec, list_codecs
from flwr_caesar.faults.cases import all_cases
from flwr_caesar.methods import device_method, get_method, list_methods
from flwr_caesar.runner import config
from flwr_caesar.runner.registry import build_strategy
from flwr_caesar.sync.ledger import SqliteLedger
from flwr_caesar.tasks.errors import ConfigError
from flwr_caesar.testing import check_method
from flwr_caesar.transport import Plan, record_to_arrays

from ..strategies.apps import initial_model, numpy_app
from ..strategies.local_grid import LocalGrid
from .distribution import files, install


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    yield install(tmp_path / "site", monkeypatch)
    for name in [name for name in sys.modules if name.startswith("adaptive_topk")]:
        del sys.modules[name]


def federation():
    return LocalGrid(numpy_app(mods=[compression_mod]), 3)


def strategy(**options):
    from adaptive_topk.server import AdaptiveTopK

    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)
    return AdaptiveTopK(inner, density=0.2, target=0.1, **options)


def uploads(grid):
    return [
        plan.upload["density"]
        for plan in (Plan.read(content)[0] for _, content in grid.sent)
        if plan.upload
    ]


def test_it_is_found_by_name():
    assert "bytewise" in list_codecs()
    assert get_codec({"id": "bytewise"}).id == "bytewise"
    assert list_methods()[-1] == "adaptive_topk"
    assert get_method("adaptive_topk").conf == "adaptive_topk.conf"
    assert {"adaptive_topk", "adaptive_topk_sparse"} <= all_cases().keys()


def test_the_method_is_short():
    halves = ("shared", "server", "device", "__init__")
    lines = [
        line
        for name in halves
        for line in files()[f"adaptive_topk/{name}.py"].splitlines()
        if line.strip() and not line.startswith(("import", "from", '"""'))
    ]
    assert len(lines) < 75


def test_a_federation_learns_and_the_device_reports():
    grid = federation()
    built = strategy()
    result = built.start(grid, initial_model(), num_rounds=4)
    densities = uploads(grid)[::3]
    assert densities == sorted(set(densities))
    assert densities[0] == 0.2
    assert all(not d.dropped for record in built.history for d in record.devices)
    before = record_to_arrays(initial_model())["weight"]
    assert not np.array_equal(record_to_arrays(result.arrays)["weight"], before)


def test_it_resumes_with_what_it_learned(tmp_path):
    whole = strategy(checkpoint=tmp_path / "whole")
    whole.start(federation(), initial_model(), num_rounds=4)
    grid, folder = federation(), tmp_path / "parts"
    strategy(checkpoint=folder).start(grid, initial_model(), num_rounds=2)
    later = strategy(checkpoint=folder)
    later.start(grid, initial_model(), num_rounds=4)
    assert later.method.density == whole.method.density > 0.2
    with SqliteLedger(folder) as ledger, SqliteLedger(tmp_path / "whole") as other:
        assert ledger.checkpoint().round == other.checkpoint().round == 4


def test_a_report_that_does_not_fit_is_refused():
    from adaptive_topk.shared import LossReport

    for part in ({}, {"lost": "1"}, {"lost": 2.0}, {"lost": 0.1, "more": 1}):
        with pytest.raises(CodecError):
            LossReport.of(part)
    with pytest.raises(CodecError):
        device_method("adaptive_topk", {"power": 3})


def test_a_device_without_the_package_says_so(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[1:])
    with pytest.raises(CodecError, match="'adaptive_topk'"):
        device_method("adaptive_topk", {})


def test_its_own_tests_pass(folder):
    shown = runpy.run_path(str(folder / "tests" / "test_adaptive_topk.py"))
    tests = [run for name, run in shown.items() if name.startswith("test_")]
    assert len(tests) == 2
    for run in tests:
        run()


def test_check_method_finds_a_device_that_forgets(monkeypatch):
    from adaptive_topk.device import ReportLoss
    from adaptive_topk.server import AdaptiveTopK

    def forgetting(self, state, trained, sent):
        return replace(state, residual={})

    monkeypatch.setattr(ReportLoss, "after", forgetting)
    with pytest.raises(AssertionError, match=r"what it computed.*seed 4"):
        check_method(AdaptiveTopK, seed=4)


def test_check_method_finds_a_server_that_refuses_honest_devices(monkeypatch):
    from adaptive_topk.server import AdaptiveMethod, AdaptiveTopK

    def picky(self, reply):
        if reply.node_id % 2:
            raise CodecError("an odd node")

    monkeypatch.setattr(AdaptiveMethod, "check", picky)
    with pytest.raises(AssertionError, match=r"honest reply is refused.*seed 4"):
        check_method(AdaptiveTopK, seed=4)


def test_the_runner_composes_and_builds_it():
    spec = config.compose(["strategy=adaptive_topk", "strategy.target=0.2"])
    built = build_strategy(spec, on_record=lambda record: None)
    assert built.method.target == 0.2
    for bad, words in (({"tarjet": 1}, "no such setting"), ({"target": 2.0}, "target")):
        changed = {**spec, "strategy": {**spec["strategy"], **bad}}
        with pytest.raises(ConfigError, match=words):
            build_strategy(changed, on_record=lambda record: None)
    sweep = config.sweep_of(["experiment=adaptive_targets"])
    assert sweep == {"strategy.target": "0.1,0.3,0.5"}


def test_the_command_runs_its_case(capsys):
    size = ["--devices", "5", "--rounds", "4", "--json"]
    assert main(["faults", "--strategy", "adaptive_topk_sparse", *size]) == 0
    assert json.loads(capsys.readouterr().out)["violations"] == []


def test_a_method_that_does_not_load_stops_nobody(folder, capsys):
    (folder / "adaptive_topk" / "__init__.py").write_text("raise ImportError('no')")
    assert config.compose(["strategy=topk"])["strategy"]["name"] == "topk"
    assert "adaptive_topk" not in all_cases()
    with pytest.raises(LookupError, match="does not load: no"):
        get_method("adaptive_topk")
