"""``flwr-caesar faults``: whether the laws hold when everything goes wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from .cases import all_cases
from .report import FaultReport
from .sessions import run_faults
from .strategies import run_strategy_faults

_ALL = "all"
_SIZES = {"sessions": (200, 1000), "strategy": (30, 120)}
_SECONDS_BETWEEN = 10


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar faults`` with these arguments.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``flwr-caesar faults``.

    Returns
    -------
    int
        0, 1 if a law was violated.
    """
    options = _parser().parse_args(arguments)
    devices, rounds = _SIZES["strategy" if options.strategy else "sessions"]
    size = {
        "seed": options.seed,
        "devices": options.devices or devices,
        "rounds": options.rounds or rounds,
        "participation": options.participation,
    }
    names = list(all_cases()) if options.strategy == _ALL else [options.strategy]
    reports = []
    for name in names:
        start = time.monotonic()
        report = _run(name, size)
        seconds = time.monotonic() - start
        reports.append(
            {**asdict(report), "injected": report.injected, "seconds": seconds}
        )
        if not options.json:
            print(_text(report, seconds), flush=True)
    if options.json:
        print(json.dumps(reports if options.strategy == _ALL else reports[0], indent=2))
    return 1 if any(report["violations"] for report in reports) else 0


def _run(name: str, size: dict[str, Any]) -> FaultReport:
    progress = _Progress(size["rounds"], name)
    if name:
        return run_strategy_faults(name, **size, on_round=progress)
    return run_faults(**size, on_round=progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar faults",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Simulate a training in which messages get lost, late, doubled, damaged and forged,
devices crash, and the server is killed, restarted and restored from backups; check all
the while that no device's learning is lost or applied twice.

Without --strategy it runs the rules of both sides alone, on updates that are whole
numbers: fast, exact, no Flower. With --strategy it runs that strategy and the mod as
they are, with a small model, in this process; nothing is trained with torch and nothing
leaves this machine.

It ends with what was injected, what the server refused and why, and the violations; the
exit status is 1 if there are any. The same arguments give the same run again, so a
violation can be looked at in a debugger.""",
        epilog="""\
examples:
  flwr-caesar faults                              the rules alone, about 2 minutes
  flwr-caesar faults --strategy topk --rounds 50  one strategy, some seconds
  flwr-caesar faults --strategy all --seed 7      every strategy, some minutes

docs/sync-design.md says what the laws are.""",
    )
    cases = all_cases()
    parser.add_argument(
        "--strategy",
        choices=[*cases, _ALL],
        default="",
        metavar="NAME",
        help=f"the strategy to run: {', '.join(cases)}; or {_ALL}",
    )
    parser.add_argument("--seed", type=int, default=0, help="names the run (0)")
    parser.add_argument(
        "--devices", type=_positive, help="how many (200; 30 with --strategy)"
    )
    parser.add_argument(
        "--rounds", type=_positive, help="how many (1000; 120 with --strategy)"
    )
    parser.add_argument(
        "--participation",
        type=_fraction,
        default=0.5,
        help="fraction of the devices asked in a round (0.5)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


class _Run(Protocol):
    """A run that is going on."""

    @property
    def events(self) -> int: ...

    @property
    def faults(self) -> Counter[str]: ...


class _Progress:
    """A line on standard error, about once in ten seconds."""

    def __init__(self, rounds: int, name: str) -> None:
        self._rounds = rounds
        self._name = f"{name}: " if name else ""
        self._next = time.monotonic() + _SECONDS_BETWEEN

    def __call__(self, number: int, run: _Run) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN
        print(
            f"{self._name}round {number + 1} of {self._rounds}: {run.events} events, "
            f"{run.faults.total()} faults",
            file=sys.stderr,
        )


def _text(report: FaultReport, seconds: float) -> str:
    name = f" --strategy {report.strategy}" if report.strategy else ""
    lines = [
        f"{report.strategy}: "
        * bool(name)
        + f"{report.devices} devices, {report.rounds} rounds, seed {report.seed}: "
        f"{report.events} events in {seconds:.0f} s",
        f"{report.applied} uploads applied, {report.changes} models sent as changes "
        f"of older ones, {report.resyncs} resyncs, "
        f"{report.forfeited} states given up as copies or old backups"
        + f", {report.predicted} uploads predicted" * bool(report.predicted)
        + f", {report.resets} control epochs begun anew" * bool(report.resets),
        f"{report.injected} faults injected:",
        *(f"  {count:>8}  {kind}" for kind, count in report.faults.items()),
        f"{sum(report.refusals.values())} replies refused:",
        *(f"  {count:>8}  {reason}" for reason, count in report.refusals.items()),
        *(
            f"met by {guard}: "
            + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            for guard, kinds in report.met.items()
        ),
        *[
            f"the model went {report.progress:.2f} % of the way to the mean of the "
            "devices' targets"
        ]
        * bool(name),
        f"{len(report.violations)} violations of the law",
        *(f"  {violation}" for violation in report.violations[:20]),
        f"replay: flwr-caesar faults{name} --seed {report.seed} "
        f"--devices {report.devices} --rounds {report.rounds} "
        f"--participation {report.participation}",
    ]
    return "\n".join(lines) + "\n" * bool(name)
