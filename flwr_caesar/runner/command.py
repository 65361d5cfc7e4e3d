"""``flwr-caesar run``: Hydra around a run, with mistakes told in one line."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig

from flwr_caesar.runner.config import (
    CONFIG_MODULE,
    CONFIG_NAME,
    compose,
    resolve,
    sweep_folders,
    sweep_of,
    validate,
)
from flwr_caesar.runner.errors import RunFailedError
from flwr_caesar.runner.job import Job, run_job
from flwr_caesar.runner.method_configs import use_method_configs
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.own_app import APP_CONFIG, as_overrides, is_asked, validate_app
from flwr_caesar.runner.parallel import Pool
from flwr_caesar.runner.report import notes, table, unused
from flwr_caesar.runner.resume import finished_rounds, require_to_go_on, resumed
from flwr_caesar.runner.sweep import ASKED, end_sweep, read_asked, write_asked
from flwr_caesar.runner.terminal import Terminal
from flwr_caesar.runner.text import span
from flwr_caesar.tasks.errors import ConfigError

_RESUME = "resume="


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
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, in one line or whole
    try:
        at_once, arguments = _at_once(arguments)
        _refuse_unknown_flags(arguments)
        _require_temporary_folder()
        going_on = any(text.startswith(_RESUME) for text in arguments)
        if going_on:
            folder, settings = _to_resume(arguments)
            if not (folder / ASKED).is_file():
                return _resume(folder, settings)
            if settings:
                raise ConfigError(settings[0], "a sweep goes on as it was; set -j only")
            arguments = read_asked(folder, own_launcher=at_once > 1)
        name = CONFIG_NAME
        if is_asked(arguments):
            name, arguments = APP_CONFIG, as_overrides(arguments)
        sys.argv = ["flwr-caesar run", *arguments]
        jobs = _check(arguments, name)
        if at_once > 1:
            return _run_at_once(arguments, name, jobs, at_once, going_on=going_on)
        sweep = _Sweep(len(jobs), going_on)

        def job(config: DictConfig) -> float:
            return _job(config, sweep)

        use_method_configs()
        hydra.main(
            config_path=f"pkg://{CONFIG_MODULE}",
            config_name=name,
            version_base="1.3",
        )(job)()
    except ConfigError as error:
        return _mistake(error)
    except HydraException as error:
        return _mistake(ConfigError("configuration", str(error)))
    except OSError as error:
        print(f"flwr-caesar: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flwr-caesar: stopped; nothing is left running", file=sys.stderr)
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    # A job that was refused because its folder has another run is in no table.
    return 1 if sweep.failed else 0


def _at_once(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many runs ``-j`` asks for at once, and the other arguments."""
    rest = list(arguments)
    for place, text in enumerate(rest):
        if not re.fullmatch(r"-j\d*|--jobs(=.*)?", text):
            continue
        value = re.sub(r"-j|--jobs=?", "", text)
        del rest[place]
        if not value:
            value = rest.pop(place) if place < len(rest) else ""
        if not re.fullmatch(r"[1-9]\d{0,3}", value):
            raise ConfigError(
                "-j", f"takes how many runs go on at once, not {value!r}: -j 2"
            )
        return int(value), rest
    return 1, rest


def _run_at_once(
    arguments: Sequence[str],
    name: str,
    jobs: Sequence[Sequence[str]],
    at_once: int,
    *,
    going_on: bool,
) -> int:
    """Run the jobs of a sweep, several at once, and compare them."""
    flags = get_args_parser().parse_args(list(arguments))
    if flags.help or flags.hydra_help or flags.info or flags.cfg:
        raise ConfigError("-j", "is for sweeps that run: leave it out here")
    hydras = [o for o in flags.overrides if o.startswith(("hydra.", "hydra/"))]
    for text in hydras:
        if text.startswith(("hydra/launcher", "hydra/sweeper")):
            raise ConfigError("-j", f"is there beside {text}: choose one of them")
    if len(jobs) < 2:
        raise ConfigError("-j", "is for sweeps: this is one run; add -m and values")
    searchpath = _absolute(flags.config_dir)
    prepared: list[Job] = []
    folder = Path()
    for number, job in enumerate(jobs):
        place, own = sweep_folders(
            [*hydras, *job], number, searchpath=searchpath, name=name
        )
        folder = folder if prepared else place
        spec = compose(job, searchpath=searchpath, name=name)
        prepared.append(Job(spec, str(folder / own), job, going_on))
    write_asked(folder, arguments)
    print(f"{len(prepared)} jobs, {at_once} at once: {folder}", flush=True)
    Pool(at_once, lambda line: print(line, flush=True)).run(prepared)
    return 0 if end_sweep(folder) else 1


def _refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Refuse a setting written as a flag, and say how it is written."""
    flags = get_args_parser()._option_string_actions
    for number, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if not name.startswith("--") or name in flags or text == "--":
            continue
        if any(flag.startswith(name) for flag in flags if flag.startswith("--")):
            continue  # argparse takes a flag that is cut short
        following = arguments[number + 1 : number + 2]
        if not equals and following and not following[0].startswith("-"):
            value = following[0]
        setting = name.removeprefix("--").replace("-", "_")
        raise ConfigError(text, f"is no flag: write {setting}={value or 'VALUE'}")


def _require_temporary_folder() -> None:
    """Find out where temporary files go, before a library fails for want of it."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise ConfigError(
            "TMPDIR", f"{error.strerror}; set it to a folder that can be written"
        ) from None


def _to_resume(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the folder to go on in, and what is set anew."""
    named = [text for text in arguments if text.startswith(_RESUME)]
    if len(named) > 1:
        raise ConfigError("resume", "names several runs; go on with one at a time")
    folder = Path(named[0].removeprefix(_RESUME))
    return folder, [text for text in arguments if text not in named]


def _resume(folder: Path, settings: Sequence[str]) -> int:
    """Go on with the run of a folder, with its settings and what is set anew."""
    spec = resumed(folder, settings)
    if "app" in spec:
        raise ConfigError(
            "resume",
            f"{folder} is a run of the app {spec['app']}, which goes on by itself if "
            'its strategy has a checkpoint="folder": run it again',
        )
    validate(spec)
    require_to_go_on(folder, spec)
    done = finished_rounds(folder)
    if done == spec["rounds"]:
        print(
            f"{folder} already has {done} rounds: nothing was started; for more, add "
            f"rounds={done + 10}"
        )
        return 0
    try:
        summary = run_job(Job(spec, str(folder), ()), Terminal())
    except RunFailedError as error:
        print(f"flwr-caesar: the run failed: {error}", file=sys.stderr)
        return 1
    if summary is not None:
        _tell(folder)
    return 0


def _tell(folder: Path) -> None:
    """Print what came out of a run."""
    outcomes = [Outcome.read(folder)]
    summary = outcomes[0].summary or {}
    said = [*notes(outcomes), *unused(outcomes)]
    if summary.get("accuracy") is None:
        said.append(
            "No accuracy: start was given no evaluate_fn, or no metric of it, or of "
            "devices that evaluate, is named accuracy."
        )
    print("\n".join(["", table(outcomes), "", *said, ""]))
    print(f"results: {folder}")
    print(f"look at them: flwr-caesar report {folder}")


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _mistake(error: ConfigError) -> int:
    print("flwr-caesar:", " ".join(str(error).split()), file=sys.stderr)
    return 2


def _check(arguments: Sequence[str], name: str) -> list[list[str]]:
    """Validate every run that the command asks for, before the first one starts.

    Returns what is set for each; nothing if only a sweeper plugin knows.
    """
    flags = get_args_parser().parse_args(list(arguments))
    if flags.help or flags.hydra_help or flags.shell_completion or flags.info:
        return []
    searchpath = _absolute(flags.config_dir)
    jobs = _jobs(
        flags.overrides,
        multirun=flags.multirun,
        own_sweep=lambda fixed: (
            sweep_of(fixed, searchpath=searchpath) if name == CONFIG_NAME else None
        ),
    )
    for overrides in jobs:
        spec = compose(overrides, searchpath=searchpath, name=name)
        if not flags.cfg:
            _validate(spec)
    return jobs


def _validate(spec: Mapping[str, Any]) -> None:
    (validate_app if "app" in spec else validate)(spec)


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(folder).resolve())


def _jobs(
    overrides: Sequence[str],
    *,
    multirun: bool,
    own_sweep: Callable[[Sequence[str]], dict[str, str] | None],
) -> list[list[str]]:
    """Return the overrides of each run; none if only a sweeper plugin knows them.

    An experiment may be a sweep itself, see `own_sweep`; what is set on the command
    line replaces what it sweeps over.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigError(text, "is no setting: write key=value")
        try:
            parsed += parser.parse_overrides([text])
        except OverrideParseException as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(text, f"cannot be read: {reason}") from None
    fixed = []
    for text, override in zip(overrides, parsed, strict=True):
        group = _group(override)
        if group not in ("experiment", "hydra"):
            continue
        if not override.is_sweep_override():
            fixed.append(text)
        elif group == "experiment" and override.is_discrete_sweep():
            for name in override.sweep_string_iterator():
                if own_sweep([f"experiment={name}"]) is not None:
                    raise ConfigError("experiment", f"{name} is a sweep: run it alone")
    params = own_sweep(fixed)
    if params is not None:
        multirun = True
        own = parser.parse_overrides([f"{k}={v}" for k, v in params.items()])
        parsed = [*own, *parsed]
    sweeps = [override for override in parsed if override.is_sweep_override()]
    if sweeps and not multirun:
        key = sweeps[0].get_key_element()
        raise ConfigError(key, "has several values; add -m to run each of them")
    if not all(o.is_discrete_sweep() for o in sweeps):
        return []
    if any(o.key_or_group.startswith("hydra/sweeper") for o in parsed):
        return []
    # Launchers and sweepers have keys of their own, which Hydra itself checks.
    parsed = [o for o in parsed if _group(o) != "hydra"]
    try:
        return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    except HydraException:
        return []


def _group(override: Override) -> str:
    """Return the first part of the key that an override sets."""
    return re.split(r"[./]", override.key_or_group, maxsplit=1)[0]


@dataclass
class _Sweep:
    """How far the runs are that come one after another."""

    jobs: int
    going_on: bool
    begun: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    def place(self, number: int) -> str:
        """Return which run of the sweep this is, and what is left."""
        if not number or number >= self.jobs:
            return f"job {number + 1} of {self.jobs or '?'}, "
        seconds = (time.monotonic() - self.begun) / number * (self.jobs - number)
        return f"job {number + 1} of {self.jobs}, {span(seconds)} to go, "


def _job(config: DictConfig, sweep: _Sweep) -> float:
    """Run one composed configuration; the value is what a sweeper would maximise."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    alone = settings.mode == RunMode.RUN
    try:
        spec = resolve(config)
        _validate(spec)
        place = "" if alone else sweep.place(settings.job.num)
        what = spec["app"] if "app" in spec else spec["strategy"]["name"]
        print(f"{place}{what}: {folder}", flush=True)
        overrides = [] if alone else list(settings.overrides.task)
        summary = run_job(Job(spec, str(folder), overrides, sweep.going_on), Terminal())
    except ConfigError as error:
        status = _mistake(error)
    except RunFailedError as error:
        print(f"flwr-caesar: the run failed: {error}", file=sys.stderr)
        status = 1
    else:
        if summary is None:
            return math.nan
        if alone:
            _tell(folder)
        accuracy = summary["accuracy"]
        return math.nan if accuracy is None else float(accuracy)
    if alone:
        raise SystemExit(status)
    sweep.failed.append(folder.name)
    return math.nan
