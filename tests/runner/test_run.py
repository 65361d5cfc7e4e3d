"""Whole runs through a real SuperLink and Flower's simulation engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from flwr_caesar.runner import apps
from flwr_caesar.runner import run as runner
from flwr_caesar.runner.config import compose
from flwr_caesar.runner.processes import family
from flwr_caesar.runner.superlink import executable

from .whole_runs import (
    MARK,
    MARKS,
    PATIENCE,
    SMALL,
    left_running,
    run_to_its_end,
    start,
    wait_for,
)

pytestmark = MARKS


def test_an_app_of_ones_own_is_made_and_run_and_measured(tmp_path: Path) -> None:
    # Through Flower's own processes: the ServerApp's learns where to write only there.
    pytest.importorskip("sklearn")
    subprocess.run([executable("flwr-caesar"), "new", "own"], cwd=tmp_path, check=True)
    folder = tmp_path / "run"
    settings = ["app=own", "rounds=1", "federation.num_supernodes=2"]
    printed = run_to_its_end(tmp_path, *settings, f"hydra.run.dir={folder}")
    assert "starting Flower and Ray" in printed
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["rounds"] == 1
    assert summary["raw_bytes"] > 2 * (summary["bytes_up"] + summary["bytes_down"])
    assert not left_running(tmp_path)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (b"flower-supernode", "SuperNode"),
        # As the system does where memory runs out.
        (b"flwr-serverapp", "the ServerApp ended without a word"),
    ],
)
def test_a_process_that_is_killed_ends_the_run(
    program: bytes, told: str, tmp_path: Path
) -> None:
    settings = ["federation=local", "rounds=1000", "train.steps=1"]
    with start(tmp_path, *settings) as command:
        assert command.stdout is not None
        next(line for line in command.stdout if "round    1/1000" in line)
        found = [
            process.pid
            for process in family(-1, f"{MARK}={tmp_path}")
            if program in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        ]
        os.kill(min(found), signal.SIGKILL)
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert told in printed
    wait_for(lambda: not left_running(tmp_path))


def test_a_failing_server_app_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    shutil.copytree(apps.app_folder(), app)
    code = app / "caesar_app" / "server_app.py"
    text = code.read_text("utf-8")
    broken = text.replace("    random.seed(", '    raise OSError("disk full")\n    (')
    assert broken != text
    code.write_text(broken, encoding="utf-8")
    monkeypatch.setattr(apps, "app_folder", lambda: app)
    folder = tmp_path / "run"
    with pytest.raises(runner.RunFailedError, match="OSError: disk full") as caught:
        runner.run(compose(SMALL), folder)
    assert str(folder / "flower.log") in str(caught.value)
    assert "disk full" in (folder / "flower.log").read_text("utf-8")
