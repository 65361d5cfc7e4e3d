"""``flwr-caesar faults``: whether the law holds when everything goes wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from flwr_caesar.sync.fault_plan import FaultReport
from flwr_caesar.sync.faults import FaultRun, run_faults


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar faults`` with these arguments.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``flwr-caesar faults``.

    Returns
    -------
    int
        0, 1 if the law was violated.
    """
    options = _parser().parse_args(arguments)
    start = time.monotonic()
    report = run_faults(
        seed=options.seed,
        devices=options.devices,
        rounds=options.rounds,
        participation=options.participation,
        on_round=_Progress(options.rounds),
    )
    seconds = time.monotonic() - start
    if options.json:
        fields = {**asdict(report), "injected": report.injected, "seconds": seconds}
        print(json.dumps(fields, indent=2))
    else:
        print(_text(report, seconds))
    return 1 if report.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar faults",
        description="Simulate a training in which messages, devices and the server "
        "fail, and check after every event that no device's learning is lost or "
        "applied twice. No Flower, no network.",
    )
    parser.add_argument("--seed", type=int, default=0, help="names the run (0)")
    parser.add_argument("--devices", type=_positive, default=200, help="(200)")
    parser.add_argument("--rounds", type=_positive, default=1000, help="(1000)")
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


class _Progress:
    """A line on standard error, about once in ten seconds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._next = time.monotonic() + 10

    def __call__(self, number: int, run: FaultRun) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 10
        print(
            f"round {number + 1} of {self._rounds}: {run.events} events, "
            f"{run.faults.total()} faults",
            file=sys.stderr,
        )


def _text(report: FaultReport, seconds: float) -> str:
    lines = [
        f"{report.devices} devices, {report.rounds} rounds, seed {report.seed}: "
        f"{report.events} events in {seconds:.0f} s",
        f"{report.applied} uploads applied, {report.changes} models sent as changes "
        f"of older ones, {report.resyncs} resyncs, "
        f"{report.forfeited} states given up as copies or old backups",
        f"{report.injected} faults injected:",
        *(f"  {count:>8}  {kind}" for kind, count in report.faults.items()),
        f"{sum(report.refusals.values())} replies refused:",
        *(f"  {count:>8}  {reason}" for reason, count in report.refusals.items()),
        f"{len(report.violations)} violations of the law",
        *(f"  {violation}" for violation in report.violations[:20]),
    ]
    if report.violations:
        lines.append(
            f"replay: flwr-caesar faults --seed {report.seed} "
            f"--devices {report.devices} --rounds {report.rounds} "
            f"--participation {report.participation}"
        )
    return "\n".join(lines)
