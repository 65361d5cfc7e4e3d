"""A Flower SuperLink of one's own: started, reached by name, stopped."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from flwr_caesar.runner.processes import end_family
from flwr_caesar.runner.text import reason
from flwr_caesar.runner.watch import Watch

CONNECTION = "flwr-caesar"
_START_SECONDS = 180.0
_PORT_TRIES = 3
_PORTS = range(20_000, 32_768)
_NO_PROXY = ("no_proxy", "NO_PROXY")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONG_PATH = 40


class SuperLinkError(RuntimeError):
    """The SuperLink did not start, or a Flower command is missing."""


def executable(name: str) -> str:
    """Return the path of a console script of this Python's environment.

    Parameters
    ----------
    name : str
        Such as ``"flwr"``.

    Raises
    ------
    SuperLinkError
        If there is none beside this interpreter nor on ``PATH``.
    """
    found = shutil.which(name, path=os.pathsep.join([*_script_folders(), os.defpath]))
    found = found or shutil.which(name)
    if found is None:
        raise SuperLinkError(f"no command {name!r}: is flwr installed in {sys.prefix}?")
    return found


def _script_folders() -> list[str]:
    return [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]


def flower_environment() -> dict[str, str]:
    """Return an environment in which Flower finds its own commands.

    Flower starts some by name, also when this environment is not activated.
    """
    path = os.pathsep.join([*_script_folders(), os.environ.get("PATH", os.defpath)])
    return {
        **_reaching_loopback(os.environ),
        "PATH": path,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _reaching_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose proxies are not asked for loopback.

    Clients disagree on which spelling of ``no_proxy`` wins, so both say the same. A
    SOCKS proxy is left out where its package is missing: httpx then refuses to start,
    whatever it is to reach.
    """
    socks = find_spec("socksio") is not None
    kept = {
        name: value
        for name, value in environment.items()
        if socks
        or not name.lower().endswith("_proxy")
        or not value.lower().startswith("socks")
    }
    given = [
        name.strip()
        for key in _NO_PROXY
        for name in environment.get(key, "").split(",")
        if name.strip()
    ]
    named = ["*"] if "*" in given else [*given, *_LOOPBACK]
    return {**kept, **dict.fromkeys(_NO_PROXY, ",".join(dict.fromkeys(named)))}


def temporary_folder() -> Path:
    """Make a folder for the files of one run, with a name short enough for sockets.

    Raises
    ------
    SuperLinkError
        If no folder for temporary files can be written.
    """
    try:
        parent = tempfile.gettempdir()
        # Ray's socket paths go below it and may not be long.
        if len(parent) >= _LONG_PATH and os.access("/tmp", os.W_OK | os.X_OK):
            parent = "/tmp"
        return Path(tempfile.mkdtemp(prefix="fc-", dir=parent))
    except OSError as error:
        raise SuperLinkError(
            f"no folder for temporary files can be written ({error}): set TMPDIR to "
            "one that can"
        ) from None


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on now.

    It is below the range from which systems take the ports of outgoing connections,
    so that none of these has it before a server does.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SuperLinkError(f"no port from {_PORTS.start} to {_PORTS.stop} is free")


class SuperLink:
    """A SuperLink on loopback, as a context manager.

    It has a Flower home of its own, in a temporary folder, with one connection named
    `CONNECTION`; the user's Flower configuration is neither read nor written. On
    leaving, every process it started is ended and the folder is removed; also if this
    process is killed.

    Parameters
    ----------
    simulation : bool
        Whether it simulates the devices of a run; if not, add some with
        `start_supernode`.

    Attributes
    ----------
    home : Path
        The Flower home; also a place for files of this run.
    environment : dict
        For Flower commands that are to reach this SuperLink.
    port : int
        Where it listens, once started.
    """

    def __init__(self, *, simulation: bool = True) -> None:
        self.port = 0
        self._simulation = simulation
        self.home = temporary_folder()
        self.environment = {
            **flower_environment(),
            "FLWR_HOME": str(self.home),
            "RAY_TMPDIR": str(self.home),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            # A container's small /dev/shm: Ray keeps what devices send in files then,
            # which it refuses to by itself on a machine of much memory.
            "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self._marker = f"FLWR_HOME={self.home}"
        self._process: subprocess.Popen[bytes] | None = None
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._watch: Watch | None = None

    def __enter__(self) -> SuperLink:
        """Start it and wait until it answers."""
        try:
            self._watch = Watch(self._marker, self.home)
            for _ in range(_PORT_TRIES):
                self.port = free_port()
                if self._start():
                    return self
            raise SuperLinkError(f"the SuperLink did not start: {reason(self.log)}")
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def log(self) -> Path:
        """What the SuperLink and its processes printed."""
        return self.home / "superlink.log"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The SuperLink's own process, while it should be running."""
        return self._process

    @property
    def stopped(self) -> str | None:
        """Which of its processes ended although it was not asked to, if one did."""
        if not self.alive:
            return "the SuperLink"
        ended = (i for i, node in enumerate(self._nodes) if node.poll() is not None)
        return next((f"SuperNode {i}" for i in ended), None)

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End all its processes and remove its folder; harmless if done before."""
        if self._process is not None:
            end_family(self._process, self._marker)
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def use_ray_cluster(self, address: str, app: Path) -> None:
        """Simulate devices on a Ray cluster that runs already; call it before entering.

        Parameters
        ----------
        address : str
            ``HOST:PORT`` of the cluster's head, one of whose machines this is.
        app : Path
            The app's folder. Flower unpacks the app on this machine only; the others
            import it from this folder, which they must have too.
        """
        self.environment["RAY_ADDRESS"] = address
        given = self.environment.get("PYTHONPATH")
        self.environment["PYTHONPATH"] = os.pathsep.join(
            [str(app), *filter(None, [given])]
        )

    def start_supernode(
        self,
        partition_id: int,
        num_partitions: int,
        *,
        port: int | None = None,
        node_config: str = "",
    ) -> subprocess.Popen[bytes]:
        """Start a SuperNode on loopback; `stop` ends it too.

        Parameters
        ----------
        partition_id, num_partitions : int
            Its ``partition-id`` and ``num-partitions``.
        port : int, optional
            Where it reaches the SuperLink, if not directly.
        node_config : str
            More of Flower's ``--node-config``.
        """
        config = f"partition-id={partition_id} num-partitions={num_partitions}"
        node = self._spawn(
            "flower-supernode",
            "--insecure",
            *("--superlink", f"127.0.0.1:{port or self.port}"),
            *("--port", str(free_port())),
            *("--node-config", f"{config} {node_config}".strip()),
        )
        self._nodes.append(node)
        return node

    def _start(self) -> bool:
        """Try one port; False if the SuperLink ended at once."""
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        self._process = self._spawn(
            "flower-superlink",
            "--insecure",
            *(["--simulation"] if self._simulation else []),
            "--disable-runtime-dependency-installation",
            *("--host", "127.0.0.1", "--port", str(self.port)),
        )
        deadline = time.monotonic() + _START_SECONDS
        while self.alive and time.monotonic() < deadline:
            if _answers(self.port):
                return True
            time.sleep(0.1)
        if self.alive:
            raise SuperLinkError(
                f"the SuperLink did not answer within {_START_SECONDS:.0f} s: "
                f"{reason(self.log)}"
            )
        return False

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [executable(name), *arguments],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=1.0) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
