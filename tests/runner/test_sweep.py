"""Sweeps: several runs at once, what is left of one that stopped, other launchers."""

from __future__ import annotations

import json
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar import cli
from flwr_caesar.results.files import write_whole
from flwr_caesar.runner import job
from flwr_caesar.runner.errors import RunFailedError
from flwr_caesar.runner.folder import RunFolder, require_new
from flwr_caesar.runner.job import Job
from flwr_caesar.runner.parallel import Pool
from flwr_caesar.runner.sweep import ASKED

# Says its folder, waits for the other one of a pair, and ends as it is told.
PAIRED = """
import json, pathlib, sys, time
job = json.loads(sys.stdin.read())
print("begun", flush=True)
pathlib.Path(job["folder"]).touch()
while job["spec"]["pair"] and not pathlib.Path(job["spec"]["pair"]).exists():
    time.sleep(0.01)
sys.exit(job["spec"]["status"])
"""
SWEEP = ["run", "-m", "strategy=fedavg", "seed=1,2,3", "hydra.sweep.dir=sweep"]
TINY = [
    *("federation=inline", "federation.num_supernodes=2", "data.partition.kind=iid"),
    *("rounds=1", "train.steps=1"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_jobs_run_at_once_and_each_has_its_own_end(tmp_path: Path) -> None:
    said: list[str] = []
    first, second, third = (str(tmp_path / name) for name in "abc")
    jobs = [
        Job({"pair": second, "status": 0}, first, ()),  # one alone would wait for ever
        Job({"pair": first, "status": 3}, second, ()),
        Job({"pair": "", "status": 0}, third, ()),
    ]
    pool = Pool(2, said.append, command=python(PAIRED))
    assert pool.run(jobs) == [0, 3, 0]
    assert {f"[{n}] begun" for n in (1, 2, 3)} <= set(said)
    told = [line for line in said if "jobs ended" in line]
    assert [line[:16] for line in told] == ["1 of 3 jobs ende", "2 of 3 jobs ende"]
    assert "to go" in told[0]


def test_what_stops_a_sweep_stops_the_runs_that_go_on(tmp_path: Path) -> None:
    begun: list[float] = []

    def say(line: str) -> None:
        if line == "[1] begun":
            begun.append(time.monotonic())
            raise KeyboardInterrupt

    jobs = [
        Job({"pair": "never", "status": 0}, str(tmp_path / str(number)), ())
        for number in range(3)
    ]
    with pytest.raises(KeyboardInterrupt):
        Pool(1, say, command=python(PAIRED)).run(jobs)
    assert len(begun) == 1  # the others did not begin


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "-j", "seed=1,2"], "-j: takes how many runs go on at once, not 'seed"),
        (["-m", "seed=1,2", "-j"], "not ''"),
        (["-m", "-j0", "seed=1,2"], "not '0'"),
        (["-j", "2"], "-j: is for sweeps"),
        (["-j2", "-m", "seed=1,2", "hydra/launcher=basic"], "choose one of them"),
        (["-j2", "--cfg", "job"], "leave it out here"),
    ],
)
def test_a_mistake_with_j_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *arguments]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert says in printed


class Runs:
    """Stands for `run`: writes what a run would, but for the seeds that fail."""

    def __init__(self) -> None:
        self.failing: set[int] = set()
        self.specs: list[dict[str, Any]] = []

    def __call__(
        self, spec: dict[str, Any], path: Path, say: object, *, overrides: list[str]
    ) -> dict[str, object]:
        require_new(path, spec)
        self.specs.append(spec)
        folder = RunFolder(path, spec)
        write_whole(path / "overrides.yaml", json.dumps(list(overrides)))
        if spec["seed"] in self.failing:
            raise RunFailedError("too cold")
        folder.on_evaluation(0, accuracy=0.1, loss=2.0)
        summary = folder.finish({"w": np.zeros(1, np.float32)})
        # What it would have trained.
        summary["rounds"] = spec["rounds"]
        write_whole(path / "summary.json", json.dumps(summary))
        return summary


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(job, "run", made)
    return made


def test_a_sweep_goes_on_with_what_is_left(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.failing = {2}
    assert cli.main(SWEEP) == 1
    assert "flwr-caesar run resume=" in capsys.readouterr().err
    asked = json.loads(Path("sweep", ASKED).read_text("utf-8"))
    assert asked["overrides"] == ["strategy=fedavg", "seed=1,2,3"]

    runs.failing, runs.specs = set(), []
    assert cli.main(["run", "resume=sweep"]) == 0
    assert [spec["seed"] for spec in runs.specs] == [2]
    assert runs.specs[0]["resume"].endswith("sweep/1-fedavg")
    printed = capsys.readouterr().out
    assert printed.count("is done already") == 2
    assert re.search(r"job 2 of 3, .* to go, fedavg", printed)

    runs.specs = []
    assert cli.main(["run", "resume=sweep"]) == 0
    assert runs.specs == []


def test_a_sweep_goes_on_as_it_was(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(SWEEP) == 0
    assert cli.main(["run", "resume=sweep", "rounds=30"]) == 2
    assert "rounds=30: a sweep goes on as it was" in capsys.readouterr().err
    Path("sweep", ASKED).write_text("{", encoding="utf-8")
    assert cli.main(["run", "resume=sweep"]) == 2
    assert "sweep.json cannot be read" in capsys.readouterr().err


def test_an_app_of_ones_own_begins_anew(tmp_path: Path, runs: Runs) -> None:
    assert cli.main(["new", "my-app"]) == 0
    spec = {"app": "my-app", "seed": 1, "rounds": 2}
    folder = tmp_path / "sweep" / "0-app"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("app: my-app\n", encoding="utf-8")
    (folder / "flower.log").write_text("why it failed", encoding="utf-8")
    begun = Job(spec, str(folder), (), going_on=True)
    with pytest.raises(KeyError, match="profile"):  # `Runs` is for the reference app
        job.run_job(begun)
    kept = tmp_path / "sweep" / "stopped" / "0-app-1" / "flower.log"
    assert kept.read_text("utf-8") == "why it failed"


def test_a_sweep_of_processes_stops_and_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real runs, two at once; one of them is taken back to before its summary."""
    sweep = ["run", "-m", "strategy=fedavg,topk", *TINY, "hydra.sweep.dir=sweep"]
    assert cli.main([*sweep, "-j", "2"]) == 0
    printed = capfd.readouterr().out
    assert "2 jobs, 2 at once" in printed
    assert re.search(r"^\[1\] fedavg +round 1/1", printed, re.M)
    assert re.search(r"^\| topk ", printed, re.M)
    assert json.loads(Path("sweep/1-topk/overrides.yaml").read_text("utf-8")) == [
        "strategy=topk",
        *TINY,
    ]
    before = Path("sweep/0-fedavg/summary.json").stat().st_mtime_ns
    Path("sweep/1-topk/summary.json").unlink()
    assert cli.main(["run", "-j2", "resume=sweep"]) == 0
    printed = capfd.readouterr().out
    assert "[1] is done already" in printed
    assert Path("sweep/0-fedavg/summary.json").stat().st_mtime_ns == before
    assert Path("sweep/1-topk/summary.json").is_file()


@pytest.mark.skipif(
    find_spec("hydra_plugins") is None
    or find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason="hydra-joblib-launcher is not installed",
)
def test_joblib_launches_runs(capfd: pytest.CaptureFixture[str]) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = ["run", "-m", "strategy=fedavg,topk", *TINY, *launcher]
    assert cli.main([*sweep, "hydra.sweep.dir=sweep"]) == 0
    assert len(list(Path("sweep").glob("*/summary.json"))) == 2
    assert re.search(r"^\| topk ", capfd.readouterr().out, re.M)


@pytest.mark.skipif(
    find_spec("hydra_plugins") is None
    or find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason="hydra-optuna-sweeper is not installed",
)
def test_optuna_looks_for_the_best(runs: Runs) -> None:
    sweeper = [
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=1"),
    ]
    sweep = ["run", "-m", "train.lr=interval(0.01, 0.2)", *sweeper]
    assert cli.main([*sweep, "hydra.sweep.dir=sweep"]) == 0
    assert len({spec["train"]["lr"] for spec in runs.specs}) == 3
    result = Path("sweep/optimization_results.yaml").read_text("utf-8")
    assert "best_value: 0.1" in result
