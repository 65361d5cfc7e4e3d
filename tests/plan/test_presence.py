"""Devices are away as often and as long as was asked."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.plan import PlanError, Presence

DEVICES = np.arange(2000)


@pytest.mark.parametrize("absent", [0.0, 0.3, 0.8])
def test_the_part_that_is_away_is_the_one_asked_for(absent: float) -> None:
    presence = Presence(absent, 20, seed=3)
    for server_round in (1, 7, 400):
        away = 1 - presence.present(server_round, DEVICES).mean()
        assert abs(away - absent) < 0.05


def test_absences_last_a_multiple_of_the_stretch_and_end_at_different_rounds() -> None:
    presence = Presence(0.5, 10, seed=1)
    there = np.array([presence.present(t, DEVICES) for t in range(1, 101)])
    changes = [np.flatnonzero(np.diff(there[:, d])) for d in DEVICES]
    assert all((np.diff(change) % 10 == 0).all() for change in changes)
    assert len({int(change[0]) % 10 for change in changes if len(change)}) == 10


def test_a_device_does_not_depend_on_the_others() -> None:
    presence = Presence(0.5, 10, seed=1)
    some = DEVICES[[5, 900, 17]]
    assert (presence.present(33, some) == presence.present(33, DEVICES)[some]).all()


@pytest.mark.parametrize(("absent", "rounds"), [(1.0, 5), (-0.1, 5), (0.5, 0)])
def test_what_makes_no_sense_is_refused(absent: float, rounds: int) -> None:
    with pytest.raises(PlanError):
        Presence(absent, rounds, seed=0)
