"""What watches the board around a message, where there is a board to watch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from logging import INFO, WARNING
from typing import Protocol

from flwr.app import ConfigRecord, RecordDict

from flwr_caesar.flower import configs_in, log
from flwr_caesar.telemetry import NODE_VARIABLE, Telemetry

# By name, as nobody but a device that `flwr-caesar node` runs pays for this import.
_MODULE, _CLASS = "flwr_caesar.deploy.device_watch", "DeviceWatch"
# The app's own, the first of which counts: an app that is given both takes steps.
_AMOUNTS = ("local-steps", "local-epochs")


class Watch(Protocol):
    """What `flwr_caesar.deploy.device_watch.DeviceWatch` does."""

    @property
    def declines(self) -> str:
        """Why the device does not train; empty if it does."""

    @property
    def takes_fewer(self) -> bool:
        """Whether it trains with fewer steps than it is asked for."""

    def decline(self) -> None:
        """Note that it was asked to."""

    def steps(self, asked: int) -> int:
        """Return how many to take of those asked for."""

    def stop(self) -> Telemetry | None:
        """End, and return what was measured."""


class Board:
    """The board that a message is handled on; a fault of its sensors costs nothing.

    Parameters
    ----------
    watch : Watch, optional
        `None` where nothing is watched, as in a simulation.
    """

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch

    def declines(self) -> str:
        """Return why the device does not train, which it is asked to; empty if it does.

        What is said ends on the server, in one line.
        """
        if self._watch is None or not self._watch.declines:
            return ""
        self._watch.decline()
        log(INFO, "flwr-caesar: declines to train: %s", self._watch.declines)
        return self._watch.declines

    def with_fewer_steps(self, content: RecordDict) -> RecordDict:
        """Return what the app is to see, with as many steps as the board is good for.

        ``"local-steps"`` of the app's configuration, or ``"local-epochs"`` where there
        are none, are lowered. An app that has neither is left alone, which is said.
        """
        if self._watch is None or not self._watch.takes_fewer:
            return content
        for key in _AMOUNTS:
            for name, config in configs_in(content).items():
                asked = config.get(key)
                if type(asked) is int and asked > 0:
                    changed = {**config, key: self._watch.steps(asked)}
                    log(INFO, "flwr-caesar: %s %d of %d", key, changed[key], asked)
                    return _with(content, name, changed)
        log(INFO, "flwr-caesar: trains in full: its app is asked for no local-steps")
        return content

    def stop(self) -> Telemetry | None:
        """End watching, at the first call; return what was measured."""
        watch, self._watch = self._watch, None
        if watch is None:
            return None
        try:
            return watch.stop()
        except Exception as err:
            log(WARNING, "flwr-caesar: the board is not measured: %s", err)
            return None


@contextmanager
def watched() -> Iterator[Board]:
    """Watch the board of this device, if ``flwr-caesar node`` runs it, to the end."""
    board = Board(_start())
    try:
        yield board
    finally:
        board.stop()


def _start() -> Watch | None:
    if not os.environ.get(NODE_VARIABLE):
        return None
    try:
        watch: Watch = getattr(import_module(_MODULE), _CLASS).start()
    except Exception as err:
        log(WARNING, "flwr-caesar: the board is not watched: %s", err)
        return None
    return watch


def _with(content: RecordDict, name: str, config: Mapping[str, object]) -> RecordDict:
    changed = content.copy()
    changed[name] = ConfigRecord(dict(config))  # type: ignore[arg-type]
    return changed
