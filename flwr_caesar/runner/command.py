"""``flwr-caesar run``: Hydra around a run, with mistakes told in one line."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig

from flwr_caesar.runner.config import (
    CONFIG_MODULE,
    CONFIG_NAME,
    compose,
    resolve,
    validate,
)
from flwr_caesar.runner.report import Outcome, table
from flwr_caesar.runner.run import RunFailedError, run
from flwr_caesar.tasks.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar run`` with these arguments.

    Parameters
    ----------
    arguments : sequence of str
        Hydra's: ``key=value`` and flags.

    Returns
    -------
    int
        0, 1 if a run failed, 2 for a mistake in the configuration, 130 or 143 if
        stopped by a signal.
    """
    signal.signal(signal.SIGTERM, _stop)
    sys.argv = ["flwr-caesar run", *arguments]
    try:
        _check(arguments)
        hydra.main(
            config_path=f"pkg://{CONFIG_MODULE}",
            config_name=CONFIG_NAME,
            version_base="1.3",
        )(_job)()
    except ConfigError as error:
        return _mistake(error)
    except KeyboardInterrupt:
        print("flwr-caesar: stopped; nothing is left running", file=sys.stderr)
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _mistake(error: ConfigError) -> int:
    print("flwr-caesar:", " ".join(str(error).split()), file=sys.stderr)
    return 2


def _check(arguments: Sequence[str]) -> None:
    """Validate every run that the command asks for, before the first one starts."""
    flags = get_args_parser().parse_args(list(arguments))
    if flags.help or flags.hydra_help or flags.shell_completion or flags.info:
        return
    for overrides in _jobs(flags.overrides, multirun=flags.multirun):
        spec = compose(overrides, searchpath=_absolute(flags.config_dir))
        if not flags.cfg:
            validate(spec)


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(folder).resolve())


def _jobs(overrides: Sequence[str], *, multirun: bool) -> list[list[str]]:
    """Return the overrides of each run; none if only a sweeper plugin knows them."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except OverrideParseException as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(text, f"cannot be read: {reason}") from None
    sweeps = [override for override in parsed if override.is_sweep_override()]
    if sweeps and not multirun:
        key = sweeps[0].get_key_element()
        raise ConfigError(key, "has several values; add -m to run each of them")
    if not all(o.is_discrete_sweep() for o in sweeps):
        return []
    if any(o.key_or_group.startswith("hydra/sweeper") for o in parsed):
        return []
    try:
        return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    except HydraException:
        return []


def _job(config: DictConfig) -> float:
    """Run one composed configuration; the value is what a sweeper would maximise."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    alone = settings.mode == RunMode.RUN
    try:
        spec = resolve(config)
        validate(spec)
        print(f"{spec['strategy']['name']}: {folder}", flush=True)
        summary = run(spec, folder, lambda line: print(line, flush=True))
    except ConfigError as error:
        status = _mistake(error)
    except RunFailedError as error:
        print(f"flwr-caesar: the run failed: {error}", file=sys.stderr)
        status = 1
    else:
        if summary is None:
            return math.nan
        if alone:
            print(f"\n{table([Outcome.read(folder)])}\n\nresults: {folder}")
        return float(summary["accuracy"])
    if alone:
        raise SystemExit(status)
    return math.nan
