"""One run: ``flwr run`` with the reference app, watched until it ends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from flwr_caesar.results.files import EVENTS, SUMMARY, write_whole
from flwr_caesar.runner.folder import LOG, OVERRIDES, require_new
from flwr_caesar.runner.lock import COMMAND, held
from flwr_caesar.runner.progress import Progress, Tail
from flwr_caesar.runner.superlink import (
    CONNECTION,
    SuperLink,
    SuperLinkError,
    executable,
    flower_environment,
    temporary_folder,
)
from flwr_caesar.runner.text import last_entry, reason, shortened, whole_lines
from flwr_caesar.runner.watch import Watch

_POLL_SECONDS = 0.2
_MARKER = "FLWR_CAESAR_RUN"
_STARTED = re.compile(r"Successfully started run (\d+)")


class RunFailedError(RuntimeError):
    """A run that started and did not finish; the message says why and where to look."""


def app_folder() -> Path:
    """Return the folder of the reference app, which ``flwr run`` bundles."""
    found = find_spec("flwr_caesar.reference_app")
    if found is None or not found.submodule_search_locations:
        raise RunFailedError("the reference app is not installed with flwr_caesar")
    return Path(next(iter(found.submodule_search_locations)))


def run(
    spec: Mapping[str, Any],
    folder: Path,
    say: Callable[[str], None] = print,
    *,
    overrides: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Run a configuration to its end.

    Parameters
    ----------
    spec : mapping
        Resolved and valid; see `flwr_caesar.runner.config`.
    folder : Path
        Where results go, on the machine where the ServerApp runs. No other run may
        use it meanwhile.
    say : callable
        Called with each line of progress.
    overrides : sequence of str
        What was set for this run of a sweep; kept in the folder.

    Returns
    -------
    dict or None
        The summary; None if it was written on another machine.

    Raises
    ------
    ConfigError
        If another run has the folder and is not resumed, or it is in use.
    RunFailedError
        With the reason and the place of the log.
    """
    folder = folder.resolve()
    try:
        require_new(folder, spec)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, COMMAND):
            require_new(folder, spec)
            (folder / EVENTS).unlink(missing_ok=True)  # of a run that is resumed
            if overrides:
                write_whole(folder / OVERRIDES, json.dumps(list(overrides)) + "\n")
            return _run(spec, folder, say)
    except SuperLinkError as error:
        raise RunFailedError(str(error)) from None
    except OSError as error:
        place = error.filename or folder
        raise RunFailedError(f"{place}: {error.strerror or error}") from error


def _run(
    spec: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    connection = spec["connection"]
    federation = spec["federation"]
    if connection is not None:
        with _scratch() as (scratch, environment):
            return _run_on(
                spec, folder, say, connection, scratch, environment=environment
            )
    if federation["kind"] == "inline":
        with _scratch() as (scratch, environment):
            return _run_inline(spec, folder, say, scratch, environment)
    simulation = federation["kind"] == "simulation"
    with SuperLink(simulation=simulation) as link:
        if not simulation:
            for i in range(federation["num_supernodes"]):
                link.start_supernode(i, federation["num_supernodes"])
        try:
            return _run_on(
                spec,
                folder,
                say,
                CONNECTION,
                link.home,
                environment=link.environment,
                link=link,
            )
        except RunFailedError:
            _append(folder / LOG, link.log)
            raise


@contextmanager
def _scratch() -> Iterator[tuple[Path, dict[str, str]]]:
    """Make a temporary folder, and an environment of which nothing is left running."""
    scratch = temporary_folder()
    try:
        environment = {**flower_environment(), _MARKER: str(scratch)}
        watch = Watch(f"{_MARKER}={scratch}", scratch)
        try:
            yield scratch, environment
        finally:
            watch.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_inline(
    spec: Mapping[str, Any],
    folder: Path,
    say: Callable[[str], None],
    scratch: Path,
    environment: Mapping[str, str],
) -> dict[str, Any] | None:
    config = scratch / "spec.json"
    config.write_text(json.dumps(spec), encoding="utf-8")
    # -P: a folder of that name where the command was given must not be imported.
    command = [sys.executable, "-P", "-m", "flwr_caesar.runner.inline", str(config)]
    with (folder / LOG).open("ab") as output:
        child = subprocess.Popen(
            [*command, str(folder)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            progress = _watch(child, spec, folder, say)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    return _summary(progress, folder) or _fail(progress, folder)


def _run_on(
    spec: Mapping[str, Any],
    folder: Path,
    say: Callable[[str], None],
    connection: str,
    scratch: Path,
    *,
    environment: Mapping[str, str],
    link: SuperLink | None = None,
) -> dict[str, Any] | None:
    run_config = scratch / "run-config.toml"
    run_config.write_text(
        # A JSON string is also a TOML string.
        f"spec = {json.dumps(json.dumps(spec))}\n"
        f"output-dir = {json.dumps(str(folder))}\n",
        encoding="utf-8",
    )
    command = [executable("flwr"), "run", str(app_folder()), connection, "--stream"]
    command += ["--run-config", str(run_config)]
    if link is not None and spec["federation"]["kind"] == "simulation":
        command += ["--federation-config", federation_config(spec["federation"])]
    log = folder / LOG
    with (
        log.open("ab") as output,
        _child(command, environment, output, connection, log) as child,
    ):
        progress = _watch(child, spec, folder, say, link)
    summary = _summary(progress, folder)
    if summary is not None:
        return summary
    if child.returncode == 0 and link is None and not (folder / EVENTS).is_file():
        _check_remote(connection, environment, log)
        say(f"results are on the ServerApp's machine, in {folder}; log here: {log}")
        return None
    return _fail(progress, folder)


def _watch(
    child: subprocess.Popen[bytes],
    spec: Mapping[str, Any],
    folder: Path,
    say: Callable[[str], None],
    link: SuperLink | None = None,
) -> Progress:
    """Tell of progress until a run's process ends; return what it said."""
    log = folder / LOG
    progress = Progress(spec["strategy"]["name"], spec["rounds"], say)
    events = Tail(folder / EVENTS)
    while child.poll() is None:
        now = time.monotonic()
        for event in events.events():
            progress.take(event, now)
        progress.quiet(now, lambda: last_entry(log))
        stopped = None if link is None else link.stopped
        if stopped is not None:  # the others would wait for it
            raise RunFailedError(f"{stopped} stopped; the log is {log}")
        time.sleep(_POLL_SECONDS)
    for event in events.events():
        progress.take(event, time.monotonic())
    return progress


def _summary(progress: Progress, folder: Path) -> dict[str, Any] | None:
    """Return the summary that this run wrote; None if it did not get so far."""
    if not progress.finished:
        return None
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text("utf-8"))
    return summary


def _fail(progress: Progress, folder: Path) -> NoReturn:
    log = folder / LOG
    why = shortened(progress.failure) or reason(log)
    raise RunFailedError(f"{why}; the log is {log}")


def federation_config(federation: Mapping[str, Any]) -> str:
    """Return the value of ``flwr run --federation-config`` for a simulation.

    Parameters
    ----------
    federation : mapping
        The ``federation`` group.
    """
    return (
        f"num-supernodes={federation['num_supernodes']} "
        f"client-resources-num-cpus={federation['client_cpus']} "
        f"client-resources-num-gpus={float(federation['client_gpus'])}"
    )


@contextmanager
def _child(
    command: list[str],
    environment: Mapping[str, str],
    output: Any,
    connection: str,
    log: Path,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``flwr run``; if left early, end it and the run that it started."""
    child = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
            started = _STARTED.search(whole_lines(log))
            if connection != CONNECTION and started:
                subprocess.run(
                    [executable("flwr"), "stop", started.group(1), connection],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=30,
                )


def _check_remote(connection: str, environment: Mapping[str, str], log: Path) -> None:
    """Raise if the SuperLink says that the run failed."""
    started = _STARTED.search(whole_lines(log))
    if not started:
        raise RunFailedError(f"{reason(log)}; the log is {log}")
    command = [executable("flwr"), "list", connection, "--run-id", started.group(1)]
    answer = subprocess.run(
        [*command, "--format", "json"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    match = re.search(r'"status":\s*"([^"]*)"', answer.stdout)
    status = match.group(1) if match else "unknown"
    if status != "finished:completed":
        raise RunFailedError(f"Flower reports {status}: {reason(log)}; see {log}")


def _append(log: Path, more: Path) -> None:
    with log.open("ab") as file:
        file.write(b"\n--- the SuperLink's own log ---\n" + more.read_bytes())
