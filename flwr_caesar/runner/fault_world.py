"""Everything that a strategy takes from its surroundings, by one seed."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from flwr_caesar.sync.chance import Chance


class Clock:
    """A clock that an operator can set back.

    Attributes
    ----------
    now : int
        Nanoseconds.
    """

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        """Return the time, which goes on with every look."""
        self.now += 1_000
        return self.now


@contextmanager
def seeded_world(chance: Chance, clock: Clock) -> Iterator[None]:
    """Take random numbers, ids and the date from here, and keep Flower's log quiet.

    Parameters
    ----------
    chance : Chance
        Whose numbers `secrets` gives.
    clock : Clock
        What `time.time_ns` tells.
    """
    log = logging.getLogger("flwr")
    level, kept = log.level, random.getstate()
    random.seed(chance.random.random())
    log.setLevel(logging.CRITICAL)
    try:
        with (
            mock.patch.object(secrets, "token_bytes", chance.random.randbytes),
            mock.patch.object(secrets, "randbits", chance.random.getrandbits),
            mock.patch.object(time, "time_ns", clock),
        ):
            yield
    finally:
        log.setLevel(level)
        random.setstate(kept)
