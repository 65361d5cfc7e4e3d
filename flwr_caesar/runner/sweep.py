"""The end of a sweep: every run side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from flwr_caesar.runner.folder import OVERRIDES
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.report import fairness, notes, picture, table, unused


class Comparison(Callback):
    """Prints and writes the comparison after ``flwr-caesar run -m``.

    It reads the folders of the runs, so it does not matter which Hydra launcher or
    sweeper made them.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the runs in the sweep's folder; exit status 1 if one failed."""
        folder = Path(config.hydra.sweep.dir).resolve()
        outcomes = read_sweep(folder)
        if outcomes:
            print()
            compare(outcomes, folder)
        failed = [outcome.folder for outcome in outcomes if outcome.summary is None]
        if failed:
            say = f"{len(failed)} of {len(outcomes)} runs failed: {', '.join(failed)}"
            print(f"flwr-caesar: {say}", file=sys.stderr)
            raise SystemExit(1)


def read_sweep(folder: Path) -> list[Outcome]:
    """Read the run folders of a sweep in the order of their numbers.

    Runs of before there was an ``overrides.yaml`` have Hydra's.
    """
    found = []
    files = {file.parents[1]: file for file in folder.glob(f"*/.hydra/{OVERRIDES}")}
    files |= {file.parent: file for file in folder.glob(f"*/{OVERRIDES}")}
    for run, file in files.items():
        number = run.name.partition("-")[0]
        overrides = [str(o) for o in OmegaConf.load(file)]
        order = (int(number) if number.isdigit() else sys.maxsize, run.name)
        found.append((order, Outcome.read(run, overrides)))
    return [outcome for _, outcome in sorted(found, key=lambda pair: pair[0])]


def compare(outcomes: list[Outcome], folder: Path) -> None:
    """Print the tables, write them and the picture to `folder`, and say where."""
    parts = [table(outcomes), "\n".join([*notes(outcomes), *unused(outcomes)])]
    by_class = fairness(outcomes)
    if by_class is not None:
        parts.append(f"Accuracy that devices reported last, %:\n\n{by_class}")
    text = "\n\n".join(parts)
    print(text)
    file = folder / "comparison.md"
    file.write_text(text + "\n", encoding="utf-8")
    print(f"\ntable:   {file}")
    image = folder / "comparison.png"
    try:
        picture(outcomes, image)
    except ImportError:
        print("picture: needs matplotlib: pip install 'flwr-caesar[plot]'")
    else:
        print(f"picture: {image}")
