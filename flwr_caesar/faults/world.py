"""What a strategy and the mod take from their surroundings, by one seed."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Message

from flwr_caesar.sync.sources import Sources

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


def by_seed(chance: Chance, clock: Clock) -> Sources:
    """Return what strategy and mod take their date, tokens and ids from.

    Parameters
    ----------
    chance : Chance
        Whose numbers these are.
    clock : Clock
        Which date it is.
    """
    return Sources(now=clock, token_bytes=chance.random.randbytes)


def in_order(messages: Iterable[Message], order: random.Random) -> list[Message]:
    """Return the messages of a phase in an order of our own.

    Flower samples with Python's global generator, see `sample_nodes` of
    `flwr.serverapp.strategy.strategy_utils`, and cannot be given another. As all nodes
    are asked that are there, only the order of the messages is its choice.
    """
    at_node = {message.metadata.dst_node_id: message for message in messages}
    return [at_node[node] for node in order.sample(sorted(at_node), len(at_node))]


@contextmanager
def quiet_log() -> Iterator[None]:
    """Keep Flower's log to what is critical."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
