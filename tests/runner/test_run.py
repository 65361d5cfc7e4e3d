"""Whole runs through a real SuperLink and Flower's simulation engine."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flwr_caesar.runner import run as runner
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.processes import family
from flwr_caesar.runner.superlink import executable

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

SMALL = ["federation=small", "rounds=2", "train.lr=0.02", "data.partition.kind=iid"]
INLINE = ["federation=inline", "federation.num_supernodes=2", "train.steps=1"]
CHECKOUT = Path(__file__).parents[2]
MARK = "FLWR_CAESAR_TEST"
# Nothing waits this long unless it is broken; a busy machine may be very slow.
PATIENCE = 900.0


@pytest.fixture(autouse=True)
def needs_everything() -> None:
    for module in ("ray", "torch", "mlxtend"):
        pytest.importorskip(module)


def start(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] = {},
    place: Path | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [executable("flwr-caesar"), "run", *arguments],
        cwd=place or folder,
        env={**os.environ, "HOME": str(folder), MARK: str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_running(folder: Path) -> set[object]:
    return set(family(-1, f"{MARK}={folder}"))


def test_an_app_of_ones_own_is_made_and_run_and_measured(tmp_path: Path) -> None:
    # Through Flower's own processes: the ServerApp's learns where to write only there.
    pytest.importorskip("sklearn")
    subprocess.run([executable("flwr-caesar"), "new", "own"], cwd=tmp_path, check=True)
    folder = tmp_path / "run"
    arguments = ["app=own", "rounds=1", "federation.num_supernodes=2"]
    with start(tmp_path, *arguments, f"hydra.run.dir={folder}") as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert "starting Flower and Ray, about 20 s" in printed
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["rounds"] == 1
    assert summary["raw_bytes"] > 2 * (summary["bytes_up"] + summary["bytes_down"])
    assert not left_running(tmp_path)


def test_a_run_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for arguments in (
        ["federation=small", "rounds=1", f"hydra.run.dir={folder}"],
        [f"resume={folder}", "rounds=2"],
    ):
        with start(tmp_path, *arguments) as command:
            printed, _ = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, printed
    with (folder / "rounds.csv").open(encoding="utf-8", newline="") as file:
        rounds = list(csv.DictReader(file))
    assert [row["round"] for row in rounds] == ["0", "1", "2"]
    sent = [int(row["bytes_up"]) for row in rounds]
    assert sent[0] == 0 < min(sent[1:])
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["bytes_up"] == sum(sent) == int(rounds[-1]["total_bytes_up"])
    assert float(rounds[1]["seconds"]) < float(rounds[2]["seconds"])


@pytest.mark.parametrize("strategy", ["fedavg", "topk", "caesar"])
def test_a_run_of_any_strategy_is_resumed(strategy: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = [f"strategy={strategy}", "rounds=2", f"hydra.run.dir={folder}"]
    with start(tmp_path, *INLINE, *first) as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    before = list(csv.DictReader((folder / "rounds.csv").open(encoding="utf-8")))
    config = (folder / "config.yaml").read_bytes()
    with start(tmp_path, f"resume={folder}", "rounds=4") as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    rows = list(csv.DictReader((folder / "rounds.csv").open(encoding="utf-8")))
    assert rows[:3] == before
    assert [row["round"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert (folder / "config.yaml").read_bytes() == config
    assert "# From round 3 on.\n" in (folder / "config-2.yaml").read_text("utf-8")
    assert json.loads((folder / "summary.json").read_text("utf-8"))["rounds"] == 4


def test_two_commands_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = [*INLINE, "rounds=1000", f"hydra.run.dir={folder}"]
    with start(tmp_path, *settings) as first:
        wait_for((folder / "rounds.csv").exists, PATIENCE)
        for arguments in (settings, [f"resume={folder}", "rounds=2000"]):
            with start(tmp_path, *arguments) as second:
                printed, _ = second.communicate(timeout=PATIENCE)
            assert second.returncode == 2, printed
            assert len(printed.splitlines()) <= 2  # the first says where it would go
        assert f"in use by process {first.pid} on " in printed
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=PATIENCE)
    assert not (folder / "config-2.yaml").exists()


def test_a_sweep_ends_with_a_table_and_nothing_running(tmp_path: Path) -> None:
    with start(tmp_path, "-m", "strategy=fedavg,topk", *SMALL) as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    assert "round 2/2" in printed
    (table,) = tmp_path.glob("runs/*/*-sweep/comparison.md")
    assert table.read_text("utf-8").strip() in printed
    assert str(table) in printed

    summaries = {}
    for folder in table.parent.glob("*-*"):
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        summaries[summary["strategy"]] = summary
        with (folder / "devices.csv").open(encoding="utf-8", newline="") as file:
            devices = list(csv.DictReader(file))
        assert len(devices) == 8
        assert summary["bytes_up"] == sum(int(d["bytes_up"]) for d in devices)
        for name in ("config.yaml", "rounds.csv", "model.safetensors", "flower.log"):
            assert (folder / name).stat().st_size > 0
    assert summaries["topk"]["bytes_up"] * 8 < summaries["fedavg"]["bytes_up"]
    for summary in summaries.values():
        assert summary["rounds"] == 2
        assert summary["dropped"] == 0
        assert summary["accuracy"] > 0.2

    assert left_running(tmp_path) == set()
    assert not (tmp_path / ".flwr").exists()


@pytest.mark.parametrize(
    ("number", "federation", "fewest"),
    [
        (signal.SIGTERM, "small", 5),
        (signal.SIGKILL, "small", 5),
        (signal.SIGKILL, "local", 5),
        (signal.SIGKILL, "inline", 2),
    ],
)
def test_stopped_in_the_middle_it_stops_everything(
    number: signal.Signals, federation: str, fewest: int, tmp_path: Path
) -> None:
    settings = [f"federation={federation}", "rounds=1000", "train.steps=1"]
    with start(tmp_path, *settings) as command:
        assert command.stdout is not None
        for line in command.stdout:
            if "round    1/1000" in line:
                break
        else:
            raise AssertionError("it ended before its first round")
        assert len(left_running(tmp_path)) >= fewest
        command.send_signal(number)
        command.communicate(timeout=PATIENCE)
    assert command.returncode == (143 if number == signal.SIGTERM else -number)
    wait_for(lambda: not left_running(tmp_path))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.flower
@pytest.mark.parametrize("federation", ["inline", "local", "small"])
def test_packages_of_the_folder_it_is_called_from_shadow_nothing(
    federation: str, tmp_path: Path
) -> None:
    for name in ("flwr_caesar", "strategies", "clients", "conf", "flwr", "caesar_app"):
        (tmp_path / name).mkdir()
        text = f"raise ImportError('the wrong {name}')\n"
        (tmp_path / name / "__init__.py").write_text(text, encoding="utf-8")
    settings = [f"federation={federation}", "federation.num_supernodes=2"]
    settings += ["rounds=1", "train.steps=1"]
    with start(tmp_path, *settings) as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed


def test_it_runs_from_inside_a_checkout(tmp_path: Path) -> None:
    settings = [*INLINE, "rounds=1", f"hydra.run.dir={tmp_path / 'run'}"]
    with start(tmp_path, *settings, place=CHECKOUT) as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed


def test_a_supernode_that_stops_ends_the_run(tmp_path: Path) -> None:
    settings = ["federation=local", "rounds=1000", "train.steps=1"]
    with start(tmp_path, *settings) as command:
        assert command.stdout is not None
        next(line for line in command.stdout if "round    1/1000" in line)
        nodes = [
            process.pid
            for process in family(-1, f"{MARK}={tmp_path}")
            if b"flower-supernode" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        ]
        os.kill(min(nodes), signal.SIGKILL)
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert "SuperNode" in printed
    wait_for(lambda: not left_running(tmp_path))


def test_a_proxy_in_the_environment_does_not_break_loopback(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "all_proxy")
    proxies = dict.fromkeys(names, nowhere) | {n.upper(): nowhere for n in names}
    settings = ["federation=local", "rounds=1", "train.steps=1"]
    with start(tmp_path, *settings, environment=proxies) as command:
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, printed
    (summary,) = tmp_path.glob("runs/*/*/summary.json")
    assert json.loads(summary.read_text("utf-8"))["dropped"] == 0


def test_a_failing_server_app_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    shutil.copytree(runner.app_folder(), app)
    code = app / "caesar_app" / "server_app.py"
    text = code.read_text("utf-8")
    broken = text.replace("    random.seed(", '    raise OSError("disk full")\n    (')
    assert broken != text
    code.write_text(broken, encoding="utf-8")
    monkeypatch.setattr(runner, "app_folder", lambda: app)
    folder = tmp_path / "run"
    with pytest.raises(runner.RunFailedError, match="OSError: disk full") as caught:
        runner.run(compose(SMALL), folder)
    assert str(folder / "flower.log") in str(caught.value)
    assert "disk full" in (folder / "flower.log").read_text("utf-8")
