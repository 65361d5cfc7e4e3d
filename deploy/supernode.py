"""One Flower SuperNode: how it is started, what it says, whether it still works."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from flwr_caesar.runner.processes import end_family
from flwr_caesar.runner.superlink import executable, flower_environment

from .node_file import ENVIRONMENT, ConfigValue, NodeFile

_ONLINE = "SuperNode ID:"
# What it says of its connection, without the cause.
_ABOUT_LINK = ("Connection attempt failed", "Connection successful after")
_EXECUTOR = b"flower-superexec"
_KEPT_LINES = 400
_MARKER = "FLWR_CAESAR_NODE_RUN"


def command(node: NodeFile) -> list[str]:
    """Return the command that starts a device's SuperNode."""
    return [
        executable("flower-supernode"),
        *("--superlink", node.address),
        *("--root-certificates", str(node.ca)),
        *("--auth-supernode-private-key", str(node.key)),
        *("--isolation", "subprocess"),
        *("--host", "127.0.0.1", "--port", str(node.port)),
        *("--node-config", node_config(node)),
    ]


def node_config(node: NodeFile) -> str:
    """Return Flower's ``--node-config``: what an app finds in ``Context.node_config``.

    Beside the pairs of ``[node-config]``: ``partition-id``, ``num-partitions``,
    ``state-dir``, ``gpu`` and, if it is set, ``threads``.
    """
    pairs: dict[str, ConfigValue] = {
        "partition-id": node.partition_id,
        "num-partitions": node.num_partitions,
        "state-dir": str(node.state_dir),
        "gpu": node.limits.gpu,
    }
    if node.limits.threads:
        pairs["threads"] = node.limits.threads
    return " ".join(f"{k}={_toml(v)}" for k, v in {**pairs, **node.node_config}.items())


def environment(node: NodeFile, path: Path) -> dict[str, str]:
    """Return the environment of a SuperNode and all that it starts.

    Its own commands are on ``PATH``, which they are not under systemd: Flower starts
    them by name, and without them stays alive without ever coming online.
    """
    env = flower_environment()
    env.setdefault("FLWR_HOME", str(node.state_dir / ".flwr"))
    env[ENVIRONMENT] = str(path.absolute())
    if node.limits.threads:
        env["OMP_NUM_THREADS"] = str(node.limits.threads)
    if node.limits.gpu == "never":
        env["CUDA_VISIBLE_DEVICES"] = ""
    # These are for this process, not for those it starts.
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        env.pop(name, None)
    return env


class SuperNode:
    """A running SuperNode.

    Parameters
    ----------
    node : NodeFile
        Of which device.
    path : Path
        Where its file is.
    echo : callable
        Takes each line that it prints.

    Attributes
    ----------
    lines : deque of str
        What it printed last.
    online : bool
        Whether the server has taken it in.
    link_events : int
        How often it said that its connection failed or came back.
    """

    def __init__(
        self, node: NodeFile, path: Path, *, echo: Callable[[str], None]
    ) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.online = False
        self.link_events = 0
        self._echo = echo
        self._id = secrets.token_hex(8)
        self._process = subprocess.Popen(
            command(node),
            env={**environment(node, path), _MARKER: self._id},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; `None` while it runs."""
        return self._process.poll()

    def progress(self) -> int:
        """Return a number that changes while its main thread works or waits its turn.

        Flower sleeps at most 20 s at a time. A main thread that died leaves a process
        that answers its own health check and never comes online; it is not scheduled
        any more.
        """
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/status").read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return 0
        counts = [ln.split()[1] for ln in text.splitlines() if "ctxt_switches" in ln]
        return sum(map(int, counts))

    def executes(self) -> bool:
        """Whether the process lives that starts apps for it.

        Flower does not look after it: without it a SuperNode stays online, takes
        messages and answers none. Where the kernel does not list children, or does
        not show what one of them runs, it is taken to live: Flower makes it
        undumpable, which hides it from its own user under systemd's
        ``ProtectProc=invisible``.
        """
        folder = Path(f"/proc/{self.pid}/task/{self.pid}")
        try:
            children = (folder / "children").read_text("ascii").split()
        except (OSError, UnicodeDecodeError):
            return True
        commands = [_command_of(child) for child in children]
        return any(text is None or _EXECUTOR in text for text in commands)

    def stop(self, *, grace: float = 20.0) -> None:
        """Let it sign off, then end it and all that it started."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._echo(f"SuperNode did not stop within {grace:.0f} s; killing it")
        end_family(self._process, f"{_MARKER}={self._id}")
        self._reader.join(5)

    def tail(self) -> list[str]:
        """Return the last lines that it printed, once it ended."""
        self._reader.join(5)
        return list(self.lines)

    def _read(self) -> None:
        stream: IO[bytes] | None = self._process.stdout
        for raw in stream or ():
            line = raw.decode(errors="replace").rstrip()
            self.lines.append(line)
            self.online = self.online or _ONLINE in line
            self.link_events += any(words in line for words in _ABOUT_LINK)
            self._echo(line)


def _command_of(pid: str) -> bytes | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None


def _toml(value: ConfigValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def port_is_free(port: int) -> bool:
    """Whether a port of loopback can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
