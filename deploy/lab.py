"""A whole fleet on one machine: server, gate, and devices on links of a given speed."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from flwr_caesar.runner.processes import end_family, family
from flwr_caesar.runner.superlink import executable, flower_environment

from .network import SERVER, Link, carried, delete_abandoned, laid_out
from .server import make_server, superlink_environment
from .server_folder import ServerFolder, ServerSettings

PREFIX = "fclab"
MOST_DEVICES = 250
_START_SECONDS = 180.0
_LOOK_SECONDS = 1.0
_MARKER = "FLWR_CAESAR_LAB"
_COUNT = itertools.count()
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class LabError(RuntimeError):
    """Something in the lab did not work; the message says what, and its log."""


class Lab:
    """Namespaces for a server and devices; use it as a context manager.

    On leaving, whatever the reason, all processes are ended, the namespaces deleted and
    the folder removed.

    Parameters
    ----------
    rates : sequence of float
        Megabits a second of each device's link, in both directions.
    home : Path, optional
        Where the server, the devices and all logs are, and stay; by default a temporary
        folder.
    """

    def __init__(self, rates: Sequence[float], *, home: Path | None = None) -> None:
        if not 1 <= len(rates) <= MOST_DEVICES:
            raise LabError(f"a lab has 1 to {MOST_DEVICES} devices, not {len(rates)}")
        prefix = f"{PREFIX}{os.getpid()}-{next(_COUNT)}"
        self.links = [Link(i, rate, prefix) for i, rate in enumerate(rates)]
        self.server = f"{prefix}-server"
        self._stack = ExitStack()
        self._home = home
        self._families: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Lab:
        """Make the namespaces and the links."""
        with ExitStack() as stack:
            delete_abandoned(PREFIX)
            home = self._home or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="fclab-"))
            )
            home.mkdir(parents=True, exist_ok=True)
            self.home = home.absolute()
            stack.enter_context(laid_out(self.links, self.server))
            stack.callback(self._end_all)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take everything down, undisturbed by a second Ctrl-C."""
        with _undisturbed():
            self._stack.close()

    @property
    def folder(self) -> ServerFolder:
        """The server's folder."""
        return ServerFolder(self.home / "server")

    def device_folder(self, link: Link) -> Path:
        """Return where a device keeps its key and ``node.toml``."""
        return self.home / f"device-{link.number}"

    def log(self, name: str) -> str:
        """Return what a family of processes printed, without colours."""
        path = self.home / f"{name}.log"
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        return _ANSI.sub("", text)

    def start_server(self, *, settings: ServerSettings | None = None) -> None:
        """Make the server if it is not there, start it and wait until it answers."""
        make_server(self.folder, settings or ServerSettings(addresses=(SERVER,)))
        command = [executable("flwr-caesar"), "deploy", "serve"]
        self.spawn("server", self.server, *command, "--folder", str(self.folder.path))
        self.wait("the server", self._server_answers, log="server")

    def join(
        self, link: Link, ticket: str, *, folder: Path | None = None, machine: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Let a device join with a ticket, in its namespace.

        Parameters
        ----------
        link : Link
            The device's.
        ticket : str
            As the server gave it.
        folder : Path, optional
            For its key and ``node.toml``; by default its `device_folder`.
        machine : str
            What tells it from others; by default the number of its link.
        """
        return self.run(
            link.namespace,
            *(executable("flwr-caesar"), "join", ticket),
            *("--folder", str(folder or self.device_folder(link))),
            *("--machine", machine or f"lab {link.number}"),
        )

    def enrol(self, *arguments: str) -> str:
        """Run ``flwr-caesar enrol`` on the server and return what it printed."""
        return self.on_server("enrol", *arguments)

    def on_server(self, command: str, *arguments: str) -> str:
        """Run a command of flwr-caesar on the server and return what it printed.

        Raises
        ------
        LabError
            If it fails.
        """
        done = self.run(self.server, executable("flwr-caesar"), command, *arguments)
        if done.returncode:
            raise LabError(f"flwr-caesar {command}: {done.stderr.strip()}")
        return done.stdout

    def start_node(self, link: Link) -> None:
        """Start ``flwr-caesar node`` on a device."""
        command = [executable("flwr-caesar"), "node"]
        path = self.device_folder(link) / "node.toml"
        self.spawn(f"node-{link.number}", link.namespace, *command, str(path))

    def wait_online(self, count: int) -> None:
        """Wait until so many devices are online."""
        # One process that looks again and again: to start one is most of a look.
        look = [executable("python"), "-P", "-c", _ONLINE]
        looker = self.spawn(
            "online", self.server, *look, str(self.folder.path), str(count)
        )
        log = f"node-{self.links[0].number}"
        try:
            self.wait(f"{count} devices", lambda: looker.poll() == 0, log=log)
        finally:
            self.end("online")

    def app_environment(self) -> dict[str, str]:
        """Return the environment in which ``flwr run`` finds the server."""
        return self._environment(superlink_environment(self.folder), "app")

    def run_app(
        self, *command: str, log: str = "app", timeout: float | None = None
    ) -> int:
        """Run a command on the server that starts an app, and return its exit status.

        Parameters
        ----------
        command : str
            Such as ``flwr run . fleet --stream``; `CONNECTION` is this server.
        log : str
            Name of its log.
        timeout : float, optional
            Seconds.
        """
        process = self.spawn(log, self.server, *command)
        try:
            return process.wait(timeout=timeout)
        finally:
            self.end(log)

    def carried(self) -> list[tuple[int, int]]:
        """Return the bytes that each device's link carried, down and up."""
        return [carried(link, self.server) for link in self.links]

    def run(
        self, where: str, *command: str, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", where, *command],
            env=self._environment(superlink_environment(self.folder), "command"),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def spawn(self, name: str, where: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in a namespace; `end` ends it and all it started."""
        home = self.home / f"{name}-flower"
        environment = flower_environment()
        if where == self.server:
            environment = superlink_environment(self.folder)
        else:
            environment["FLWR_HOME"] = str(home)
        with (self.home / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", where, *command],
                env=self._environment(environment, name),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._families[name] = process
        return process

    def end(self, name: str) -> None:
        """End a process that was started by that name, and all it started."""
        process = self._families.pop(name)
        end_family(process, self._marker(name), grace_s=15.0)

    def kill(self, name: str) -> None:
        """Kill a process and all it started at once, as a power cut does."""
        for pid in self.members(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end_family(self._families.pop(name), self._marker(name))

    def members(self, name: str) -> list[int]:
        """Return the ids of a process started by that name, and of all it started."""
        found = family(self._families[name].pid, self._marker(name))
        return sorted(member.pid for member in found)

    def wait(
        self,
        what: str,
        done: Callable[[], bool],
        *,
        log: str,
        seconds: float = _START_SECONDS,
    ) -> None:
        """Wait until a condition holds.

        Raises
        ------
        LabError
            If it does not within that time, with the end of a log.
        """
        until = time.monotonic() + seconds
        while not done():
            process = self._families.get(log)
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > until:
                tail = "\n".join(self.log(log).splitlines()[-15:])
                raise LabError(f"{what} did not come up; the end of its log:\n{tail}")
            time.sleep(_LOOK_SECONDS)

    def _server_answers(self) -> bool:
        answer = self.run(
            self.server,
            *(executable("python"), "-c", _HEALTH),
            f"https://{self.folder.settings.address}/health",
            str(self.folder.authority_certificate),
        )
        return answer.returncode == 0

    def _environment(self, environment: Mapping[str, str], name: str) -> dict[str, str]:
        marker, _, value = self._marker(name).partition("=")
        return {
            **environment,
            marker: value,
            "FLWR_CAESAR_SERVER": str(self.folder.path),
            "XDG_STATE_HOME": str(self.home / "state"),
            "OMP_NUM_THREADS": "1",
        }

    def _marker(self, name: str) -> str:
        return f"{_MARKER}={self.server}:{name}"

    def _end_all(self) -> None:
        for name in reversed(list(self._families)):
            self.end(name)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


_HEALTH = """\
import ssl, sys, urllib.request as request
context = ssl.create_default_context(cafile=sys.argv[2])
request.urlopen(sys.argv[1], timeout=2, context=context)
"""

_ONLINE = """\
import sys, time
from pathlib import Path
from flwr_caesar.deploy.control import SuperLinkDownError, connect
from flwr_caesar.deploy.server_folder import ServerFolder
while True:
    try:
        with connect(ServerFolder(Path(sys.argv[1]))) as control:
            states = [node.state for node in control.nodes().values()]
    except SuperLinkDownError:
        states = []
    if states.count("online") >= int(sys.argv[2]):
        break
    time.sleep(1)
"""
