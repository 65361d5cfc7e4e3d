"""One run of a sweep: begun, gone on with, or left alone if it is done."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flwr_caesar.results.files import SUMMARY
from flwr_caesar.runner.errors import RunFailedError
from flwr_caesar.runner.folder import CONFIG
from flwr_caesar.runner.resume import finished_rounds, require_to_go_on, resumed
from flwr_caesar.runner.run import run
from flwr_caesar.tasks.errors import ConfigError

STOPPED = "stopped"


@dataclass(frozen=True)
class Job:
    """What a process of its own is told.

    Parameters
    ----------
    spec : mapping
        Resolved and valid.
    folder : str
        Of the run.
    overrides : sequence of str
        What the sweep sets for this run.
    going_on : bool
        Whether the sweep was stopped before: a run that is done is not run again.
    """

    spec: Mapping[str, Any]
    folder: str
    overrides: Sequence[str]
    going_on: bool = False

    def to_json(self) -> str:
        """Return what `main` reads."""
        return json.dumps(asdict(self))


def run_job(job: Job, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Run it to its end; return its summary, or None as `run` does.

    Raises
    ------
    ConfigError
        If its folder has a run and the sweep does not go on with one.
    RunFailedError
        With the reason and the place of the log.
    """
    folder = Path(job.folder)
    spec = dict(job.spec)
    if job.going_on and (folder / CONFIG).is_file():
        if _is_done(folder, spec):
            say("is done already")
            summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text("utf-8"))
            return summary
        if "app" in spec:
            _set_aside(folder)  # only its own strategy could go on with it
        else:
            spec = resumed(folder, [])
            require_to_go_on(folder, spec)
    return run(spec, folder, say, overrides=job.overrides)


def _is_done(folder: Path, spec: Mapping[str, Any]) -> bool:
    done = finished_rounds(folder)
    return done > 0 and ("app" in spec or done >= spec["rounds"])


def _set_aside(folder: Path) -> None:
    place = folder.parent / STOPPED
    place.mkdir(exist_ok=True)
    number = sum(1 for _ in place.glob(f"{folder.name}-*")) + 1
    folder.rename(place / f"{folder.name}-{number}")


def main() -> int:
    """Run the job that the standard input describes; lines tell how far it is.

    Returns
    -------
    int
        0, 1 if the run failed, 2 for a mistake in the configuration.
    """
    signal.signal(signal.SIGTERM, _stop)
    # Whoever started this stops it; a Ctrl-C is for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = Job(**json.loads(sys.stdin.read()))
    try:
        run_job(job, lambda line: print(line, flush=True))
    except ConfigError as error:
        print(f"flwr-caesar: {' '.join(str(error).split())}", flush=True)
        return 2
    except RunFailedError as error:
        print(f"flwr-caesar: the run failed: {error}", flush=True)
        return 1
    except BrokenPipeError:  # nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
