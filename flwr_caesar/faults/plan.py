"""How often which fault is injected, and the report of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Chance for each message sent.
MESSAGE_FAULTS = {
    "drop": 0.04,
    "delay": 0.08,
    "duplicate": 0.08,
    "corrupt-frame": 0.03,
    "corrupt-header": 0.03,
}
# For each message delivered.
REORDER = 0.2
READ_ERROR = "device-read-error"
"""Of a state that is kept in Flower's Context; see `DISK_FAULTS` for those on disks."""
# For each request that a device works on.
DEVICE_FAULTS = {
    "device-crash-before-write": 0.04,
    "device-crash-after-write": 0.05,
    "device-disk-full": 0.03,
    READ_ERROR: 0.03,
}
# For each request that a device with a disk works on, if nothing else strikes it.
DISK_FAULTS = {
    "disk-read-error": 0.06,
    "disk-write-error": 0.04,
    "disk-moved": 0.04,
    "app-killed-with-child": 0.02,
}
# For each device and round.
DEVICE_EVENTS = {
    "device-restored": 0.002,
    "device-deleted": 0.001,
    "device-copied": 0.001,
    "device-new-node": 0.01,
}
# For each phase.
SERVER_FAULTS = {
    "server-crash-open": 0.03,
    "server-crash-before-commit": 0.04,
    "server-crash-after-commit": 0.04,
    "server-restored": 0.01,
    "server-clock-back": 0.005,
    "server-clock-stays-back": 0.005,
}
DEADLINE = 0.2
MOST_LIVES_BACK = 8
"""For how many lives of a server, at most, its clock stays back."""


@dataclass(frozen=True)
class FaultReport:
    """What happened.

    Parameters
    ----------
    seed, devices, rounds : int
        Of the run; together with `participation` they name it.
    participation : float
        Fraction of the devices asked in a round.
    events : int
        Messages delivered, durable writes, commits, and acts of the operator.
    faults : mapping of str to int
        Injected, by kind.
    applied, changes, resyncs, forfeited : int
        Uploads committed, models sent as changes of older ones, whole models asked
        for, and states given up.
    refusals : mapping of str to int
        Replies refused, by reason.
    violations : tuple of str
        Of the law, in the order found.
    strategy : str
        What ran; empty for the sessions alone.
    predicted : int
        Uploads committed that were predicted from earlier ones.
    moved, resets : int
        Phases after which control variates were not zero, and control epochs begun
        anew.
    met : mapping of str to mapping of str to int
        How often each guard met each kind of fault, where it can be told.
    progress : float
        How much of the way from the first model to the mean of the devices' targets
        the last one has gone, in percent: 100 less the squared distance that is left.
    """

    seed: int
    devices: int
    rounds: int
    participation: float
    events: int
    faults: dict[str, int]
    applied: int
    changes: int
    resyncs: int
    forfeited: int
    refusals: dict[str, int]
    violations: tuple[str, ...]
    strategy: str = ""
    predicted: int = 0
    moved: int = 0
    resets: int = 0
    met: dict[str, dict[str, int]] = field(default_factory=dict)
    progress: float = math.nan

    @property
    def injected(self) -> int:
        """Number of faults of all kinds."""
        return sum(self.faults.values())
