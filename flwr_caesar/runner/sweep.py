"""A sweep's folder: how it was asked for, and at its end every run side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from flwr_caesar.results.files import write_whole
from flwr_caesar.runner.folder import OVERRIDES
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.report import fairness, notes, picture, table, unused
from flwr_caesar.tasks.errors import ConfigError

ASKED = "sweep.json"
_PLACE = "hydra.sweep.dir="
_LAUNCHER = ("hydra/launcher=", "hydra.launcher.")


class Comparison(Callback):
    """Prints and writes the comparison after ``flwr-caesar run -m``.

    It reads the folders of the runs, so it does not matter which Hydra launcher or
    sweeper made them.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note how the sweep was asked for."""
        write_asked(Path(config.hydra.sweep.dir).resolve(), sys.argv[1:])

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the runs in the sweep's folder; exit status 1 if one failed."""
        if not end_sweep(Path(config.hydra.sweep.dir).resolve()):
            raise SystemExit(1)


def write_asked(folder: Path, arguments: Sequence[str]) -> None:
    """Keep the arguments of a sweep in its folder."""
    flags = get_args_parser().parse_args(list(arguments))
    place = flags.config_dir and str(Path(flags.config_dir).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    asked = {
        "overrides": [o for o in flags.overrides if not o.startswith(_PLACE)],
        "config_dir": place,
    }
    write_whole(folder / ASKED, json.dumps(asked, indent=2) + "\n")


def read_asked(folder: Path, *, own_launcher: bool = False) -> list[str]:
    """Return the arguments with which to go on with a sweep.

    Parameters
    ----------
    folder : Path
        The sweep's.
    own_launcher : bool
        Leave out how its runs were started.

    Raises
    ------
    ConfigError
        If the file cannot be read.
    """
    file = folder / ASKED
    try:
        asked = json.loads(file.read_text(encoding="utf-8"))
        overrides = [str(text) for text in asked["overrides"]]
        place = asked["config_dir"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("resume", f"{file} cannot be read: {error}") from None
    if own_launcher:
        overrides = [o for o in overrides if not o.startswith(_LAUNCHER)]
    extra = [] if place is None else ["--config-dir", str(place)]
    return ["-m", *extra, *overrides, f"{_PLACE}{folder.resolve()}"]


def end_sweep(folder: Path) -> bool:
    """Compare the runs of a sweep; return whether all of them came to their end."""
    outcomes = read_sweep(folder)
    if outcomes:
        print()
        compare(outcomes, folder)
    failed = [outcome.folder for outcome in outcomes if outcome.summary is None]
    if failed:
        say = f"{len(failed)} of {len(outcomes)} runs failed: {', '.join(failed)}"
        print(f"flwr-caesar: {say}", file=sys.stderr)
        print(f"try these again: flwr-caesar run resume={folder}", file=sys.stderr)
    return not failed


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
