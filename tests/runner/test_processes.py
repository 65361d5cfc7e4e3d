"""A run that is stopped leaves nothing running."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .whole_runs import MARKS, PATIENCE, left_running, start, wait_for

pytestmark = MARKS


@pytest.mark.parametrize(
    ("number", "federation", "fewest"),
    [
        (signal.SIGKILL, "small", 5),
        (signal.SIGKILL, "local", 5),
        (signal.SIGKILL, "inline", 2),
        (signal.SIGTERM, "inline", 2),
    ],
)
def test_stopped_in_the_middle_it_stops_everything(
    number: signal.Signals, federation: str, fewest: int, tmp_path: Path
) -> None:
    settings = [f"federation={federation}", "rounds=1000", "train.steps=1"]
    # One device, and one worker of Ray on two cores: the fewest of each kind.
    settings += ["federation.num_supernodes=1", "federation.client_cpus=2"]
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
