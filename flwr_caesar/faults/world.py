"""Everything that a strategy takes from its surroundings, by one seed."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from .chance import Chance


class Clock:
    """A clock that can be wrong.

    Attributes
    ----------
    is_back : bool
        Whether it says that it is 1970.
    """

    def __init__(self) -> None:
        self.is_back = False
        self._now = 1_000_000

    def __call__(self) -> int:
        """Return nanoseconds, which go on with every look."""
        self._now += 1_000
        return 0 if self.is_back else self._now


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
