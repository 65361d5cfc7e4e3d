"""A whole strategy under everything that can go wrong, against its laws.

The real `Strategy.start`, the real mod, a ledger on disk, and a small model; only the
network, the disks of the devices and the life of the server are played. What the laws
are is said in docs/sync-design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .cases import FaultCase, all_cases
from .disks import quick_folder
from .report import FaultReport
from .sessions import QUIET_ROUNDS
from .strategy_run import SEVERITIES, StrategyFaultRun


def run_strategy_faults(
    name: str,
    *,
    seed: int,
    devices: int,
    rounds: int,
    participation: float = 0.5,
    case: FaultCase | None = None,
    on_round: Callable[[int, StrategyFaultRun], None] | None = None,
    severities: Sequence[float] = SEVERITIES,
    quiet_rounds: int = QUIET_ROUNDS,
) -> FaultReport:
    """Train with faults, and check the laws after every message and round.

    Parameters
    ----------
    name : str
        One of `flwr_caesar.faults.cases.all_cases`, or of `case`.
    seed : int
        Decides everything: the same arguments give the same report.
    devices, rounds : int
        Size of the run.
    participation : float
        Fraction of the devices asked in a round.
    case : FaultCase, optional
        What to run, if it is none that is known by its name.
    on_round : callable, optional
        Called with the number of each round and the run, when it begins.
    severities : sequence of float
        Each round draws one, by which its chances of faults are multiplied; ``(0,)``
        is a run without faults.
    quiet_rounds : int
        How many rounds without faults, and with all devices, follow.
    """
    with quick_folder() as folder:
        run = StrategyFaultRun(
            name,
            case or all_cases()[name],
            seed,
            devices,
            participation,
            folder,
            on_round,
            severities=severities,
        )
        run.run(rounds, quiet_rounds)
    return run.report(seed=seed, rounds=rounds, participation=participation)
