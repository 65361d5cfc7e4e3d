"""The command line: help, mistakes, and what is checked before anything starts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar import cli
from flwr_caesar.records import DeviceRecord, RoundRecord
from flwr_caesar.results.files import write_whole
from flwr_caesar.results.results import Results
from flwr_caesar.runner import command, config, job
from flwr_caesar.runner.folder import RunFolder, require_new
from flwr_caesar.runner.run import RunFailedError
from flwr_caesar.sync.ledger import SqliteLedger


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(job, "run", refuse)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "run" in capsys.readouterr().out
    assert cli.main(["fly"]) == 2
    assert "there are: " in capsys.readouterr().err


def test_a_source_tree_on_the_path_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["run"]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert "source and not installed" in printed


def test_help_begins_with_what_is_used_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert named[0] == "run"
    assert named.index("run") < named.index("codec") < named.index("faults")
    assert named.index("faults") < named.index("deploy")
    (faults,) = [line for line in lines if line.split()[:1] == ["faults"]]
    assert "for developers" in faults


@pytest.mark.usefixtures("never_run")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rounds", "5"], "--rounds: is no flag: write rounds=5"),
        (["--rounds=5"], "--rounds=5: is no flag: write rounds=5"),
        (["--strategy.rate", "0.5"], "write strategy.rate=0.5"),
        (["--fraction-train"], "write fraction_train=VALUE"),
        (["strategy.deadline=60"], "write +strategy.deadline=60"),
        (["rounds"], "rounds: is no setting: write key=value"),
    ],
)
def test_another_way_to_write_it_is_answered_with_ours(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *arguments]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert says in printed


def test_help_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("strategy: ", "caesar, ", "experiment: ", "mnist5k", "rounds", "-m"):
        assert part in text


@pytest.mark.usefixtures("never_run")
@pytest.mark.parametrize(
    "arguments",
    [
        ["rouds=3"],
        ["rounds=["],
        ["rounds"],
        ["strategy=fedavg,topk"],
        ["-m", "strategy=fedavg,nope"],
        ["-m", "strategy=fedavg,topk", "rounds=2,0"],
        ["-m", "strategy=fedavg,topk", "strategy.density=0.1"],
        ["--rounds", "5"],
        ["-m", "experiment=mnist5k,caesar_mnist5k"],
        ["experiment=caesar_mnist5k", "strategy=fedavg", "strategy.density=0.1"],
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["run", *arguments]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("flwr-caesar: ")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Fourteen rounds of a run, with a checkpoint, and nothing that could run it."""
    path = tmp_path / "run"
    folder = RunFolder(
        path,
        config.compose(
            [
                "rounds=14",
                "strategy=topk",
                "strategy.density=0.1",
                "+strategy.quorum=0.8",
            ]
        ),
    )
    for number in range(15):
        folder.on_evaluation(number, accuracy=0.06 * number, loss=1.0)
    folder.finish({"w": np.zeros(1, np.float32)})
    with SqliteLedger(folder.checkpoint):
        pass
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.mark.usefixtures("never_run")
@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ([], 0, "already has 14 rounds"),
        (["rounds=14"], 0, "already has 14 rounds"),
        (["rounds=5"], 2, "already has 14 rounds"),
        (["rounds=0"], 2, "rounds: must be"),
        (["rounds=many"], 2, "rounds: must be"),
        (["federation.num_supernodes=7"], 2, "is 20 in this run and cannot be changed"),
        (["seed=2", "rounds=30"], 2, "seed: is 1 in this run and cannot"),
        (
            ["strategy.density=0.5"],
            2,
            "strategy.density: is 0.1 in this run and cannot",
        ),
        (["strategy=caesar"], 2, "strategy: is {"),
        (["strategy.clock=1"], 2, "strategy.clock: is not set in this run and cannot"),
        (["inner=fedadam"], 2, "inner: is {"),
        (["inner.name=fedadam"], 2, "inner.name: is fedavg in this run and cannot"),
        (["inner.eta=0.1"], 2, "inner.eta: is no setting of that run"),
        (["train.lr=0.1"], 2, "train.lr: is 0.05 in this run and cannot"),
        (["+profile.devices=null"], 0, "already has 14 rounds"),  # as it is
        (["data.partition.alpha=0.3"], 0, "already has 14 rounds"),
        (["rouds=20"], 2, "rouds: is not set in this run"),
        (["rounds"], 2, "rounds: is no setting: write key=value"),
        (["-m"], 2, "-m: is no setting"),
        (["~strategy.quorum"], 2, "is no setting"),
        (["resume=other"], 2, "names several runs"),
    ],
)
def test_what_a_resume_starts_nothing_for_and_leaves_as_it_was(
    settings: list[str],
    status: int,
    says: str,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(trained)
    assert cli.main(["run", f"resume={trained}", *settings]) == status
    printed = capsys.readouterr()
    assert says in (printed.err if status else printed.out)
    assert len((printed.err or printed.out).splitlines()) == 1
    assert contents(trained) == before


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("rounds=30", "rounds", 30),
        ("strategy.quorum=1.0", "strategy.quorum", 1.0),
        ("+strategy.deadline=60", "strategy.deadline", 60),
        ("strategy.deadline=60", "strategy.deadline", 60),
        ("federation.fraction_train=0.25", "federation.fraction_train", 0.25),
        ("target_accuracy=0.9", "target_accuracy", 0.9),
    ],
)
def test_what_a_resume_may_change(
    setting: str,
    key: str,
    value: object,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs: list[config.Spec] = []
    monkeypatch.setattr(job, "run", lambda spec, *_, **__: specs.append(spec))
    more = [] if key == "rounds" else ["rounds=15"]
    assert cli.main(["run", f"resume={trained}", setting, *more]) == 0
    assert config.get(specs[0], key) == value
    assert specs[0]["resume"] == str(trained)


def test_a_resume_goes_on_with_the_settings_of_the_latest_segment(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {**config.compose(["rounds=20"]), "resume": str(trained)}
    folder = RunFolder(trained, spec)
    folder.on_evaluation(14, accuracy=0.84, loss=1.0)
    folder.on_record(RoundRecord(15, "train", 1.0, ()))
    specs: list[config.Spec] = []
    monkeypatch.setattr(job, "run", lambda spec, *_, **__: specs.append(spec))
    assert cli.main(["run", f"resume={trained}"]) == 0
    assert specs[0]["rounds"] == 20
    assert "quorum" not in specs[0]["strategy"]


@pytest.mark.usefixtures("never_run")
def test_a_run_without_checkpoint_is_not_begun_anew(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(trained / "checkpoint")
    before = contents(trained)
    assert cli.main(["run", f"resume={trained}", "rounds=30"]) == 2
    assert "14 rounds of topk and no checkpoint" in capsys.readouterr().err
    assert contents(trained) == before


@pytest.mark.usefixtures("never_run")
@pytest.mark.parametrize("text", ["a: [", "\0", "- 1\n"])
def test_a_configuration_that_cannot_be_read_is_one_line(
    text: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "config.yaml").write_text(text, encoding="utf-8")
    assert cli.main(["run", f"resume={trained}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_sweep_ends_non_zero_and_names_the_jobs_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(
        spec: config.Spec, path: Path, say: object, *, overrides: list[str]
    ) -> dict[str, object]:
        folder = RunFolder(path, spec)
        write_whole(path / "overrides.yaml", json.dumps(overrides))
        if spec["seed"] == 2:
            raise RunFailedError("no reply could be used: too cold")
        folder.on_evaluation(0, accuracy=0.1, loss=2.0)
        return folder.finish({"w": np.zeros(1, np.float32)})

    def refuse(spec: config.Spec, path: Path, *_: object, **__: object) -> None:
        require_new(path, spec)

    monkeypatch.setattr(job, "run", run)
    sweep = ["run", "-m", "strategy=fedavg", "seed=1,2,3", "hydra.sweep.dir=sweep"]
    assert cli.main(sweep) == 1
    printed = capsys.readouterr()
    assert "the run failed: no reply could be used: too cold" in printed.err
    assert "1 of 3 runs failed: 1-fedavg" in printed.err
    assert (tmp_path / "sweep" / "2-fedavg" / "summary.json").is_file()

    before = contents(tmp_path / "sweep" / "0-fedavg")
    shutil.rmtree(tmp_path / "sweep" / "1-fedavg")
    monkeypatch.setattr(job, "run", refuse)
    again = ["run", "-m", "strategy=fedavg", "seed=4", "hydra.sweep.dir=sweep"]
    assert cli.main(again) == 1  # into a folder of the first sweep
    assert "has a run already" in capsys.readouterr().err
    assert contents(tmp_path / "sweep" / "0-fedavg") == before


def test_a_folder_of_another_run_stays_as_it_is(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    assert cli.main(["run", f"hydra.run.dir={trained}"]) == 2
    assert "has a run already" in capsys.readouterr().err
    assert contents(trained) == before


@pytest.mark.usefixtures("never_run")
def test_without_a_place_for_temporary_files_it_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert cli.main(["run"]) == 2
    assert capsys.readouterr().err == (
        "flwr-caesar: TMPDIR: No usable temporary directory found in ['/tmp']; set it "
        "to a folder that can be written\n"
    )


@pytest.mark.usefixtures("never_run")
def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["run", "hydra.run.dir=file/run"]) == 1
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert "file/run" in printed


def test_an_experiment_can_be_a_sweep_and_the_command_line_wins() -> None:
    def jobs(*arguments: str) -> list[list[str]]:
        return command._jobs(arguments, multirun=False, own_sweep=config.sweep_of)

    whole = jobs("experiment=caesar_mnist5k")
    assert len(whole) == 15
    assert whole[0][:2] == ["strategy=fedavg", "seed=1"]
    alone = jobs("experiment=caesar_mnist5k", "strategy=topk", "seed=7")
    assert alone == [["strategy=topk", "seed=7", "experiment=caesar_mnist5k"]]
    other = jobs("experiment=caesar_mnist5k", "strategy=fedavg,topk", "seed=1")
    assert [job[0] for job in other] == ["strategy=fedavg", "strategy=topk"]
    assert jobs("experiment=mnist5k") == [["experiment=mnist5k"]]


def test_the_packages_import_light() -> None:
    code = (
        "import sys, flwr_caesar, flwr_caesar.cli\n"
        "heavy = {'torch', 'hydra', 'matplotlib', 'flwr', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize("tested", [True, False])
def test_a_run_ends_with_its_table_what_it_means_and_what_to_do_next(
    tested: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = DeviceRecord(1, bytes_down=90, bytes_up=10, raw_bytes_down=900)
    history = [RoundRecord(1, "train", 1.0, (device,))]
    metrics = {1: {"accuracy": 0.5}} if tested else {}
    Results("Caesar", history, metrics).save(tmp_path)
    command._tell(tmp_path)
    printed = capsys.readouterr().out
    assert "9.0" in printed
    assert "Raw: the same messages" in printed
    assert ("No accuracy: " in printed) == (not tested)
    assert f"flwr-caesar report {tmp_path}" in printed.splitlines()[-1]


def test_who_has_read_enough_is_no_error() -> None:
    code = "from flwr_caesar.cli import main; raise SystemExit(main(['codec', 'list']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout is not None
        listing.stdout.close()
        _, said = listing.communicate(timeout=60)
    assert said == b""


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError("a server's")

    monkeypatch.setattr("flwr_caesar.codec_cli.main", broken)
    with pytest.raises(BrokenPipeError, match="a server's"):
        cli.main(["codec", "list"])
