"""Apps of users' own: checked before they start, measured without a word in them."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

from flwr_caesar import cli
from flwr_caesar.results.live import VARIABLE
from flwr_caesar.runner import inline, job
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.own_app import (
    APP_CONFIG,
    as_overrides,
    rounds_of,
    run_config,
    validate_app,
)
from flwr_caesar.runner.progress import Progress, Tail
from flwr_caesar.runner.text import whole_rows
from flwr_caesar.tasks.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(job, "run", None)  # nothing here is to be started


@pytest.fixture
def own() -> str:
    assert cli.main(["new", "my-app"]) == 0
    return "my-app"


def spec_of(*overrides: str) -> dict[str, object]:
    return compose(as_overrides(overrides), name=APP_CONFIG)


def test_the_apps_keys_are_known_and_passed_on(own: str) -> None:
    spec = spec_of(f"app={own}", "rounds=3", "run_config.learning-rate=0.5")
    validate_app(spec)
    assert tomllib.loads(run_config(spec)) == {
        "num-server-rounds": 3,
        "learning-rate": 0.5,
    }
    assert rounds_of(spec) == 3
    plain = spec_of(f"app={own}")
    validate_app(plain)
    assert run_config(plain) == ""
    assert rounds_of(plain) == 10


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["app=nowhere"], "app: nowhere/pyproject.toml: No such file"),
        (["app=nowhere"], "flwr-caesar new nowhere"),
        (["app=broken"], "is not valid TOML"),
        (["app=other"], "has no [tool.flwr.app.components]"),
        (["app=my-app", "run_config.lr=1"], "run_config.lr: the app's keys are: frac"),
        (["app=my-app", "rounds=0"], "rounds: must be"),
        (["app=my-app", "strategy=caesar"], "an app of your own sets its strategy"),
        (["app=my-app", "strategy.rate=1"], "an app of your own sets its strategy"),
        (["app=my-app", "federation.kind=fast"], "simulation, inline or supernodes"),
        (["app=my-app", "federation.num_supernodes=0"], "num_supernodes: must be"),
        (["app=my-app", "federation.ray_address=a"], "ray_address: must be null or HO"),
        (
            ["app=my-app", "federation.kind=inline", "federation.ray_address=a:1"],
            "ray_address: is for federation.kind=simulation only",
        ),
        (["app=fixed", "rounds=3"], "has no num-server-rounds"),
        (["app=text"], "has no [tool.flwr.app.components]"),
        (["app=my-app", "nonsense=1"], "nonsense: no such key"),
    ],
)
@pytest.mark.usefixtures("own")
def test_a_mistake_is_one_line(
    overrides: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (
        ("broken", "["),
        ("other", "[tool]\n"),
        ("text", '[tool.flwr.app]\ncomponents = "a:b"\n'),
        ("fixed", '[tool.flwr.app.components]\nserverapp = "a:b"\n'),
    ):
        Path(name).mkdir()
        Path(name, "pyproject.toml").write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["run", *overrides]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert says in printed


def test_help_of_an_own_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "app=x", "--help"]) == 0
    assert "run_config.KEY" in capsys.readouterr().out


def test_an_own_apps_run_is_not_resumed_by_the_runner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("run").mkdir()
    Path("run", "config.yaml").write_text("app: my-app\nrounds: 3\n", encoding="utf-8")
    assert cli.main(["run", "resume=run"]) == 2
    assert "goes on by itself if its strategy has a checkpoint" in (
        capsys.readouterr().err
    )


def test_what_new_makes_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full", "file").touch()
    for name, says in (("full", "not empty"), ("9lives", "no name for an app")):
        assert cli.main(["new", name]) == 1
        assert says in capsys.readouterr().err
    assert cli.main(["new", "My_App"]) == 0
    assert Path("My_App", "my_app", "task.py").is_file()


def test_the_new_app_runs_as_it_is_and_is_measured(
    own: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    spec = spec_of(
        f"app={own}",
        *("rounds=2", "run_config.local-epochs=1", "federation.kind=inline"),
        "federation.num_supernodes=4",
    )
    validate_app(spec)
    Path("spec.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    inline.main(["spec.json", "run"])
    for name in [name for name in sys.modules if name.startswith("my_app")]:
        monkeypatch.delitem(sys.modules, name)
    run = tmp_path / "run"
    lines: list[str] = []
    progress = Progress("my-app", None, lines.append)
    for event in Tail(run / "events.jsonl").events():
        progress.take(event, 0.0)
    assert progress.finished
    assert [line.split()[2] for line in lines] == ["0/2", "1/2", "2/2"]
    rows = whole_rows(run / "rounds.csv")
    assert float(rows[-1]["accuracy"]) > 0.2
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["raw_bytes"] > 3 * (summary["bytes_up"] + summary["bytes_down"])
    assert (run / "model.safetensors").is_file()


def test_why_an_own_app_failed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flwr.serverapp.strategy import FedAvg

    from flwr_caesar.clients import compression_mod
    from flwr_caesar.strategies import TopK

    from ..strategies.apps import initial_model, numpy_app
    from ..strategies.local_grid import LocalGrid

    def broken(server_round: int, arrays: object) -> None:
        raise RuntimeError("no test data")

    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    strategy = TopK(FedAvg())
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    with pytest.raises(RuntimeError, match="no test data"):
        strategy.start(grid, initial_model(), num_rounds=1, evaluate_fn=broken)
    progress = Progress("own", None, lambda line: None)
    for event in Tail(tmp_path / "run" / "events.jsonl").events():
        progress.take(event, 0.0)
    assert progress.failure == "RuntimeError: no test data"


def test_rounds_without_a_test_are_told_as_they_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flwr.serverapp.strategy import FedAvg

    from flwr_caesar.clients import compression_mod
    from flwr_caesar.strategies import TopK

    from ..strategies.apps import initial_model, numpy_app
    from ..strategies.local_grid import LocalGrid

    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    for fraction in (0.0, 1.0):
        strategy = TopK(FedAvg(fraction_evaluate=fraction))
        grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
        strategy.start(grid, initial_model(), num_rounds=2)
        events = list(Tail(tmp_path / "run" / "events.jsonl").events())
        kinds = [event["event"] for event in events][-4:]
        assert kinds == ["started", "round", "round", "finished"]
        assert events[-2]["accuracy"] is None


def test_a_configuration_error_names_the_app() -> None:
    with pytest.raises(ConfigError, match="app"):
        validate_app(spec_of("app=."))
