"""What happens to the messages of the sessions between sending and delivery."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .chance import Chance
from .odds import DEADLINE, MESSAGE_FAULTS, REORDER

_MOST_LATE = 400


@dataclass(frozen=True)
class SentMessage:
    """A request or a reply on its way.

    Parameters
    ----------
    node_id : int
        To which, or from which, it goes.
    fields : dict
        Its header.
    frame : bytes, optional
        What comes with it.
    epoch, phase : int
        When it, or what it answers, was made.
    train, is_reply : bool
        Of which phase, and which direction.
    fault : str
        What befell it on its way; empty for nothing.
    """

    node_id: int
    fields: dict[str, Any]
    frame: bytes | None
    epoch: int
    phase: int
    train: bool = True
    is_reply: bool = False
    fault: str = ""


class Wire:
    """Drops, delays, doubles, reorders and damages messages.

    Parameters
    ----------
    chance : Chance
        Decides which.
    """

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._random = chance.random
        self._wire: deque[SentMessage] = deque()
        self._late: list[SentMessage] = []

    def clear(self) -> None:
        """Lose everything that is on its way."""
        self._wire.clear()
        self._late.clear()

    def put(self, message: SentMessage) -> None:
        """Take a message to which nothing happens."""
        self._wire.append(message)

    def send(self, message: SentMessage) -> str:
        """Take a message; return what befalls it, empty for nothing."""
        fault = self._chance.pick(MESSAGE_FAULTS)
        if fault:
            message = replace(message, fault=fault)
        if fault == "drop":
            return fault
        if fault == "delay":
            self._late.append(message)
            del self._late[:-_MOST_LATE]
            return fault
        if fault == "duplicate":
            copies = self._wire if self._random.random() < 0.7 else self._late
            copies.append(message)
        if fault == "corrupt-frame":
            message = replace(message, frame=self._chance.flip(message.frame or b""))
        if fault == "corrupt-header":
            name = self._random.choice(sorted(message.fields))
            value = self._chance.tamper(message.fields[name])
            message = replace(message, fields={**message.fields, name: value})
        self._wire.append(message)
        return fault

    def let_late_ones_arrive(self) -> None:
        """Let some of what was late be on its way again."""
        for _ in range(
            min(len(self._late), self._random.randrange(1 + len(self._late)))
        ):
            self._wire.append(self._late.pop(self._random.randrange(len(self._late))))

    def deliveries(self) -> Iterator[SentMessage]:
        """Deliver what is there and what is sent meanwhile, until the deadline."""
        quiet = self._chance.quiet
        deadline = not quiet and self._random.random() < DEADLINE
        left = self._random.randrange(1 + 2 * len(self._wire)) if deadline else -1
        while self._wire:
            if left == 0:
                self._chance.faults["deadline-missed"] += len(self._wire)
                missed = (replace(m, fault="deadline-missed") for m in self._wire)
                self._late.extend(missed)
                del self._late[:-_MOST_LATE]
                self._wire.clear()
                return
            left -= 1
            if not quiet and len(self._wire) > 1 and self._random.random() < REORDER:
                self._chance.faults["reorder"] += 1
                self._wire.rotate(-self._random.randrange(1, len(self._wire)))
            yield self._wire.popleft()
