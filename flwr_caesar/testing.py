"""What an author runs on a codec or a method of their own.

``check_codec(MyCodec())`` and ``check_method(MyStrategy, setting=...)`` in a test are
all it takes; both raise AssertionError and need no test framework. See
docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import Strategy

from flwr_caesar.codec.conformance.suite import check_codec
from flwr_caesar.faults.cases import FaultCase
from flwr_caesar.faults.report import FaultReport
from flwr_caesar.faults.strategies import run_strategy_faults

__all__ = ["check_codec", "check_method"]


def check_method(
    factory: Callable[..., Strategy],
    *,
    seed: int = 0,
    devices: int = 8,
    rounds: int = 10,
    **settings: Any,
) -> FaultReport:
    """Check that nothing a device learned is lost or counted twice, whatever happens.

    The real ``start``, the real mod and a small model; messages are lost, late,
    doubled, damaged and forged, devices crash, and the server is killed and restored
    from backups. The laws are those of docs/sync.md. The device's half is found by the
    name that the plans give, so the method has to be installed.

    Parameters
    ----------
    factory : callable
        The constructor: takes an inner strategy, settings and `WrapperOptions`, and
        returns a `CompressedStrategy`.
    seed : int
        Decides everything: the same arguments give the same run again.
    devices, rounds : int
        Size of the run; a few rounds without faults follow.
    **settings
        Keyword arguments of the constructor, suited to a model of 1,120 weights.

    Returns
    -------
    FaultReport
        What was injected, applied and refused.

    Raises
    ------
    AssertionError
        If a law is violated, with the first violations and how to have them again; or
        if no upload was ever applied, as then nothing was checked.
    ValueError
        If the strategy sends plain arrays.
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    report = run_strategy_faults(
        name,
        seed=seed,
        devices=devices,
        rounds=rounds,
        case=FaultCase(name, settings, factory),
    )
    again = f"{name}, seed {seed}, {devices} devices, {rounds} rounds"
    if report.violations:
        raise AssertionError("; ".join(report.violations[:5]) + f" ({again})")
    if not report.applied:
        raise AssertionError(f"no upload was applied: {report.refusals} ({again})")
    return report
