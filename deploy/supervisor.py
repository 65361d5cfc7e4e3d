"""Keeping a SuperNode running: start, watch, explain, wait, start again, for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from .endings import LAPSE_SECONDS, Ending, explain_ending, wait_after
from .node_file import NodeFile
from .notify import Notifier
from .policy import Readings, link_reason
from .probe import Probed
from .words import Advice, duration, explain

PROBE_SECONDS = 60.0
# A probe is a TLS handshake, some 4 kB; Flower's own polling is 539 B/s.
METERED_PROBE_SECONDS = 600.0
METER_SECONDS = 60.0
# Flower sleeps at most 20 s at a time; a slow board imports for a minute.
HUNG_SECONDS = 180.0
# One that ends before it was seen once is missed for so long.
EXECUTOR_SECONDS = 10.0
# What was online for so long had started well.
STEADY_SECONDS = 60.0
# How soon after a probe the next may be, when the SuperNode loses its connection.
_SOON_SECONDS = 5.0
_TICK = 1.0
_SAY_EVERY = 20.0


class Running(Protocol):
    """A SuperNode that was started; see `flwr_caesar.deploy.supernode.SuperNode`."""

    online: bool
    link_events: int

    @property
    def exit_code(self) -> int | None:
        """How it ended; `None` while it runs."""

    def progress(self) -> int:
        """Return a number that changes while it works."""

    def executes(self) -> bool:
        """Whether the process lives that starts apps for it."""

    def stop(self) -> None:
        """End it, if it runs, and all that it started."""

    def tail(self) -> Sequence[str]:
        """Return the last lines that it printed."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What a supervisor has to do with.

    Parameters
    ----------
    start : callable
        Starts a SuperNode.
    check : callable
        Returns what on this machine keeps a SuperNode from starting, or `None`.
    probe : callable
        Asks the server once, and tells it what the device is doing.
    used : callable
        Returns what is known of the metered link, at a moment.
    wait : callable
        Waits for some seconds; True if it was told to stop.
    say : callable
        Takes a line for people.
    notifier : Notifier
        Tells the service manager.
    clock, now : callable
        Seconds that only go forward, and the time on the wall.
    """

    start: Callable[[], Running]
    check: Callable[[], Advice | None]
    probe: Callable[[str], Probed]
    used: Callable[[datetime], Readings]
    wait: Callable[[float], bool]
    say: Callable[[str], None]
    notifier: Notifier
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = field(default=lambda: datetime.now().astimezone())


class Supervisor:
    """Keeps a device's SuperNode running until it is told to stop.

    Parameters
    ----------
    node : NodeFile
        Which device.
    world : World
        What it has to do with.
    """

    def __init__(self, node: NodeFile, world: World) -> None:
        self._node = node
        self._world = world
        self._stopped = False
        self._failures = 0
        self._refusals = 0
        self._last_said = ""
        self._server_trouble = ""
        self._state = "starting"
        self._last_online: float | None = None

    def run(self) -> None:
        """Run until `World.wait` says to stop."""
        self._world.notifier.ready()
        while not self._stopped:
            reason = self._off_link()
            if reason:
                self._say(f"Off the metered link: {reason}")
                self._pause(METER_SECONDS, f"off the metered link: {reason}")
                continue
            advice = self._world.check() or self._ask()
            if advice is None:
                ending = self._serve()
                if ending is None:
                    continue
                advice, online = ending.advice, ending.already_online
            else:
                online = False
            self._after(advice, already_online=online)
        self._world.notifier.stopping()

    def _after(self, advice: Advice, *, already_online: bool) -> None:
        self._failures += 1
        self._refusals = self._refusals + 1 if already_online else 0
        seconds = self._lapse() if already_online else wait_after(self._failures)
        if str(advice) != self._server_trouble:
            self._say(str(advice))
        self._pause(seconds, advice.problem, count=already_online)

    def _lapse(self) -> float:
        """Return for how long the server may still take us for online."""
        if self._refusals > 1 or self._last_online is None:
            return LAPSE_SECONDS
        since = self._world.clock() - self._last_online
        return max(LAPSE_SECONDS - since, 5.0)

    def _serve(self) -> Ending | None:
        """Start a SuperNode and watch it; `None` if it was ended on purpose."""
        running = self._world.start()
        try:
            ending = self._watch(running)
            if ending is not None or running.exit_code is None:
                return ending
            return self._ended(running, running.exit_code)
        finally:
            running.stop()

    def _watch(self, running: Running) -> Ending | None:
        """Return once the SuperNode ended, hangs or is to be off."""
        clock = self._world.clock
        started = moved = came = clock()
        progress = running.progress()
        probed, metered = started, started
        interval = METERED_PROBE_SECONDS if self._node.metered else PROBE_SECONDS
        self._tick("starting")
        was_online, executed, without, events = False, False, 0, 0
        while running.exit_code is None and not self._stopped:
            now = clock()
            if running.online and not was_online:
                was_online, came = True, now
                self._say(f"Online: {self._node.name} at {self._node.address}")
            if running.online:
                self._last_online = now
                if now - started > STEADY_SECONDS:
                    self._failures = self._refusals = 0
            if (latest := running.progress()) != progress:
                progress, moved = latest, now
            if now - moved > HUNG_SECONDS:
                return Ending(_hung(now - moved))
            if running.executes():
                executed, without = True, 0
            elif executed or (was_online and now - came > EXECUTOR_SECONDS):
                # A SuperNode that is being killed loses its children first: one look
                # does not tell whose end this is.
                without += 1
                if without > 1:
                    return Ending(_NO_EXECUTOR)
            if now - metered >= METER_SECONDS:
                metered = now
                if reason := self._off_link():
                    self._say(f"Leaving the metered link: {reason}")
                    return None
            news = running.link_events != events and now - probed >= _SOON_SECONDS
            if news or now - probed >= interval:
                events = running.link_events
                self._ask()
                probed = clock()
            self._tick("online" if was_online else "starting")
        return None

    def _ended(self, running: Running, code: int) -> Ending:
        host, port = self._node.host_port
        return explain_ending(
            code,
            running.tail(),
            self._world.probe(self._state),
            name=self._node.name,
            host=host,
            port=port,
            local_port=self._node.port,
            refusals=self._refusals,
        )

    def _ask(self) -> Advice | None:
        """Probe; say what is wrong when it changes, and when it is over."""
        host, port = self._node.host_port
        probed = self._world.probe(self._state)
        advice = explain(probed, name=self._node.name, host=host, port=port)
        trouble = str(advice or "")
        if trouble != self._server_trouble:
            self._say(trouble or "The server answers and knows this device")
        self._server_trouble = trouble
        return advice

    def _off_link(self) -> str:
        metered = self._node.metered
        if metered is None:
            return ""
        now = self._world.now()
        return link_reason(self._world.used(now), metered, now)

    def _pause(self, seconds: float, why: str, *, count: bool = False) -> None:
        """Wait, and tell how long still: people each 20 s, the manager each second."""
        end = self._world.clock() + seconds
        said = self._world.clock() - _SAY_EVERY
        while not self._stopped and (left := end - self._world.clock()) > 0:
            if count and self._world.clock() - said >= _SAY_EVERY:
                said = self._world.clock()
                self._world.say(f"{why}; waiting {left:.0f} s")
            self._tick(f"{why}; trying again in {duration(left)}", min(_TICK, left))

    def _tick(self, status: str, seconds: float = _TICK) -> None:
        self._state = status
        self._world.notifier.status(status)
        self._world.notifier.alive()
        self._stopped = self._world.wait(seconds) or self._stopped

    def _say(self, line: str) -> None:
        """Say a line, unless it is what was said last."""
        if line != self._last_said:
            self._world.say(line)
        self._last_said = line


_NO_EXECUTOR = Advice(
    "flower-superexec, which starts the apps, ended, most likely for want of memory: "
    "the SuperNode takes messages and answers none",
    "it is started again; see `journalctl -k | grep -i oom`, and add swap",
)


def _hung(seconds: float) -> Advice:
    return Advice(
        f"The SuperNode has not moved for {duration(seconds)}: its main thread is gone "
        "or stuck",
        "it is started again; if this repeats, see its lines above",
    )
