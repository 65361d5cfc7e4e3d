"""One hostile node beside honest ones, on a real SuperLink: the worst attacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .attacks import FORGED, OTHER_EPOCH, WORST
from .hostile_run import run_attacks

pytestmark = pytest.mark.servers


def test_each_round_closes_with_the_honest_devices(tmp_path: Path) -> None:
    ending = [attack for attack in WORST if attack.ends]
    endless = [attack for attack in WORST if not attack.ends]
    segments = [("Caesar", ending), ("Caesar", endless), ("FedComLoc", OTHER_EPOCH)]
    outcome = run_attacks(tmp_path, segments)
    assert outcome.returncode == 0, outcome.log[-3000:]
    assert not outcome.stopped
    assert len(outcome.rounds) == len(WORST) + len(OTHER_EPOCH)
    for round in outcome.rounds:
        assert round.honest, round
        assert bool(round.reason) == bool(round.attack.met), round
        assert re.search(round.attack.met, round.reason), round
        assert len(round.reason) < 1000
    # What was refused is named, and nobody writes lines of the log but the server.
    lines = outcome.log.splitlines()
    assert not [line for line in lines if line.endswith(FORGED)]
    assert sum("times as long as the median" in line for line in lines) == 1
    assert max(map(len, lines)) < 10_000
