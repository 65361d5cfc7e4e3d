"""The pretended fleet, and the table and figure of several runs.

python -m caesar.utils results
"""

import sys
from importlib.resources import files
from pathlib import Path

import yaml
from flwr_caesar.plan import Profile, VirtualClock
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.report import picture, table
from flwr_caesar.strategies import CompressedStrategy

TARGET = 0.93  # accuracy to which bytes and hours are counted


def pretended_clock(devices: int, seed: int) -> VirtualClock | None:
    """Return a clock that charges devices for what they send and compute.

    A third of the devices are phones, the others Jetsons of four kinds.

    Parameters
    ----------
    devices : int
        How many there are; 0: real ones, which take the time that they take.
    seed : int
        Names the kinds and links of the devices.
    """
    if not devices:
        return None
    text = files("flwr_caesar.conf").joinpath("profile/mixed.yaml").read_text("utf-8")
    profile = Profile.of(yaml.safe_load(text))
    return VirtualClock(profile, devices, seed=seed)


def keep(strategy: CompressedStrategy, results: str, name: str, seed: int) -> None:
    """Write a run's tables into a folder ``NAME-SEED`` of the results."""
    strategy.save(Path(results) / f"{name}-{seed}")


def read(results: Path, target: float) -> list[Outcome]:
    """Return the runs that `keep` wrote, with when each reached the target."""
    return [
        _with_target(Outcome.read(folder, _settings(folder)), target)
        for folder in sorted(results.iterdir())
        if folder.is_dir()
    ]


def _settings(folder: Path) -> list[str]:
    name, _, seed = folder.name.rpartition("-")
    return [f"strategy={name}", f"seed={seed}"]


def _with_target(run: Outcome, target: float) -> Outcome:
    reached = next((r for r in run.rounds if float(r["accuracy"]) >= target), None)
    found = {"accuracy": target, "round": None}
    if reached is not None:
        found = {
            "accuracy": target,
            "round": int(reached["round"]),
            "bytes_up": int(reached["total_bytes_up"]),
            "bytes_down": int(reached["total_bytes_down"]),
            "virtual_seconds": float(reached.get("total_virtual_seconds") or 0),
        }
    summary = {**(run.summary or {}), "target": found}
    return Outcome(summary, run.overrides, run.rounds, run.devices, run.folder)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    runs = read(place, TARGET)
    print(table(runs))
    picture(runs, place / "comparison.png")
