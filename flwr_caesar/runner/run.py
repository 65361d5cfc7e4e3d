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
from pathlib import Path
from typing import Any, NoReturn

from flwr_caesar.results.files import EVENTS, SUMMARY, write_whole
from flwr_caesar.results.live import VARIABLE
from flwr_caesar.runner.apps import App
from flwr_caesar.runner.errors import RunFailedError
from flwr_caesar.runner.folder import CONFIG, LOG, OVERRIDES, require_new
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
from flwr_caesar.runner.terminal import Screen, Terminal
from flwr_caesar.runner.text import (
    exception_in,
    last_entry,
    reason,
    shortened,
    whole_lines,
)
from flwr_caesar.runner.watch import Watch

_POLL_SECONDS = 0.2
_MARKER = "FLWR_CAESAR_RUN"
_WITHOUT_A_WORD = (
    "the ServerApp ended without a word, as a process does that the system kills where "
    "memory runs out (its log then says so: dmesg)"
)
_STARTED = re.compile(r"Successfully started run (\d+)")


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
            if "app" in spec:
                return _run_own(spec, folder, say)
            return _run(spec, folder, say)
    except SuperLinkError as error:
        raise RunFailedError(str(error)) from None
    except OSError as error:
        place = error.filename or folder
        raise RunFailedError(f"{place}: {error.strerror or error}") from error


def _run(
    spec: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    connection, federation = spec["connection"], spec["federation"]
    if connection is not None:
        with _scratch() as (scratch, environment):
            return _run_on(
                App.reference(spec, folder),
                folder,
                say,
                connection,
                scratch,
                environment=environment,
            )
    if federation["kind"] == "inline":
        with _scratch() as (scratch, environment):
            app = App.reference(spec, folder)
            return _run_inline(app, spec, folder, say, scratch, environment)
    return _run_here(App.reference(spec, folder), federation, folder, say, {})


def _run_own(
    spec: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run an app of the user's own, whose strategy writes the folder."""
    from omegaconf import OmegaConf

    write_whole(folder / CONFIG, OmegaConf.to_yaml(dict(spec)))
    app = App.own(spec)
    variables = {VARIABLE: str(folder)}
    if spec["federation"]["kind"] == "inline":
        with _scratch() as (scratch, environment):
            place = {**environment, **variables}
            summary = _run_inline(app, spec, folder, say, scratch, place)
    else:
        summary = _run_here(app, spec["federation"], folder, say, variables)
    if summary is None:
        raise RunFailedError(
            "the app came to its end and nothing was measured: its strategy is none of "
            "flwr_caesar.strategies; wrap it, such as Caesar(FedAvg(...)), or with "
            f"Uncompressed(...) to measure it as it is; the log is {folder / LOG}"
        )
    return summary


def _run_here(
    app: App,
    federation: Mapping[str, Any],
    folder: Path,
    say: Callable[[str], None],
    variables: Mapping[str, str],
) -> dict[str, Any] | None:
    """Run an app on a SuperLink that is started for it."""
    simulation = federation["kind"] == "simulation"
    count = federation["num_supernodes"]
    cluster = federation.get("ray_address")  # a run of before has no such key
    ray = f"the Ray cluster at {cluster}" if cluster else "Ray"
    engine = ray if simulation else f"{count} SuperNodes"
    say(f"{app.name:<8}  starting Flower and {engine}, about 20 s")
    link = SuperLink(simulation=simulation)
    link.environment.update(variables)
    if cluster:
        link.use_ray_cluster(cluster, app.folder)
    with link:
        if not simulation:
            for i in range(count):
                link.start_supernode(i, count)
        settings = federation_config(federation) if simulation else None
        try:
            return _run_on(
                app,
                folder,
                say,
                CONNECTION,
                link.home,
                environment=link.environment,
                link=link,
                settings=settings,
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
    app: App,
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
            progress = _watch(child, app, folder, say)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    summary = _summary(progress, folder)
    if summary is None and child.returncode == 0 and "app" in spec:
        return None  # its strategy is none of ours
    return summary or _fail(progress, folder)


def _run_on(
    app: App,
    folder: Path,
    say: Callable[[str], None],
    connection: str,
    scratch: Path,
    *,
    environment: Mapping[str, str],
    link: SuperLink | None = None,
    settings: str | None = None,
) -> dict[str, Any] | None:
    command = [executable("flwr"), "run", str(app.folder), connection, "--stream"]
    if app.run_config:
        file = scratch / "run-config.toml"
        file.write_text(app.run_config, encoding="utf-8")
        command += ["--run-config", str(file)]
    if settings is not None:
        command += ["--federation-config", settings]
    log = folder / LOG
    with (
        log.open("ab") as output,
        _child(command, environment, output, connection, log) as child,
    ):
        progress = _watch(child, app, folder, say, link)
    summary = _summary(progress, folder)
    if summary is not None:
        return summary
    if child.returncode == 0 and not (folder / EVENTS).is_file():
        _check_ended(connection, environment, log)
        if link is not None:
            return None
        say(f"results are on the ServerApp's machine, in {folder}; log here: {log}")
        return None
    return _fail(progress, folder)


def _watch(
    child: subprocess.Popen[bytes],
    app: App,
    folder: Path,
    say: Callable[[str], None],
    link: SuperLink | None = None,
) -> Progress:
    """Tell of progress until a run's process ends; return what it said."""
    log = folder / LOG
    events = Tail(folder / EVENTS)
    with _shown(app, folder, say) as (progress, screen):
        while child.poll() is None:
            now = time.monotonic()
            for event in events.events():
                progress.take(event, now)
            progress.quiet(now, lambda: last_entry(log))
            if screen is not None:
                screen.show()
            stopped = None if link is None else link.stopped
            if stopped is not None:  # the others would wait for it
                raise RunFailedError(f"{stopped} stopped; the log is {log}")
            time.sleep(_POLL_SECONDS)
        for event in events.events():
            progress.take(event, time.monotonic())
    return progress


@contextmanager
def _shown(
    app: App, folder: Path, say: Callable[[str], None]
) -> Iterator[tuple[Progress, Screen | None]]:
    """Follow a run by lines, or by a table where there is a terminal for one."""
    if not isinstance(say, Terminal) or not say.console.is_terminal:
        yield Progress(app.name, app.rounds, say), None
        return
    progress = Progress(app.name, app.rounds, lambda line: None)
    with say.following(progress, folder) as screen:
        yield progress, screen


def _summary(progress: Progress, folder: Path) -> dict[str, Any] | None:
    """Return the summary that this run wrote; None if it did not get so far."""
    if not progress.finished:
        return None
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text("utf-8"))
    return summary


def _fail(progress: Progress, folder: Path) -> NoReturn:
    log = folder / LOG
    why = shortened(progress.failure) or exception_in(log)
    if not why:
        why = reason(log)
        if (folder / EVENTS).is_file():  # it began
            why = f"{_WITHOUT_A_WORD}; last in its log: {why}"
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


def _check_ended(connection: str, environment: Mapping[str, str], log: Path) -> None:
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
