"""What happened in a run under faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


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
