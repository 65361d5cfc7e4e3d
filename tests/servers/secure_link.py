"""A SuperLink with TLS that takes registered keys only, on loopback."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

import httpx
from flwr.supercore.control import ControlHttpClient

from flwr_caesar.deploy.control import Control
from flwr_caesar.deploy.device_key import load_key, make_key, public_pem
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.pki import issue, make_authority
from flwr_caesar.runner.processes import end_family
from flwr_caesar.runner.superlink import executable, flower_environment, free_port

from ..deploy.plain_server import HOST, write_identity

PATIENCE = 240.0


class SecureLink:
    """A SuperLink, with an authority and a database that survive its restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.authority = make_authority()
        write_identity(issue(self.authority, [HOST, "localhost"], days=30), folder)
        (folder / "ca.crt").write_bytes(self.authority.certificate_pem)
        self._home = folder / "flower"
        self._home.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SecureLink:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "superlink.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    executable("flower-superlink"),
                    *("--ssl-ca-certfile", str(self.folder / "ca.crt")),
                    *("--ssl-certfile", str(self.folder / "server.crt")),
                    *("--ssl-keyfile", str(self.folder / "server.key")),
                    "--enable-supernode-auth",
                    *("--host", HOST, "--port", str(self.port)),
                    *("--database", str(self.folder / "superlink.db")),
                    "--disable-runtime-dependency-installation",
                ],
                env={**flower_environment(), "FLWR_HOME": str(self._home)},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        trusted = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        while True:
            try:
                httpx.get(f"https://{HOST}:{self.port}/health", verify=trusted)
                return
            except httpx.TransportError:
                assert self._process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            end_family(self._process, f"FLWR_HOME={self._home}")
            self._process = None

    def register(self, node: NodeFile, name: str = "device") -> int:
        """Let a device connect."""
        with self._control() as client:
            return Control(client).register(public_pem(load_key(node.key)), name)

    def unregister(self, node_id: int) -> None:
        """Let a device connect no more."""
        with self._control() as client:
            Control(client).unregister(node_id)

    def states(self) -> list[str]:
        """Return what it says of its nodes."""
        with self._control() as client:
            return [node.state for node in Control(client).nodes().values()]

    def device(self, name: str, partition: int = 0) -> NodeFile:
        """Return the file of a new device, in a folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        make_key(folder / "device.key")
        node = NodeFile(
            address=f"{HOST}:{self.port}",
            ca=self.folder / "ca.crt",
            name=name,
            key=folder / "device.key",
            partition_id=partition,
            num_partitions=4,
            state_dir=folder / "state",
            port=free_port(),
        )
        node.save(folder / "node.toml")
        return node

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            f"{HOST}:{self.port}",
            insecure=False,
            root_certificates=self.authority.certificate_pem,
            interceptors=[],
        )


class NodeProcess:
    """``flwr-caesar node`` as a user runs it, and what it prints."""

    def __init__(self, node: NodeFile, **environment: str) -> None:
        self._marker = f"NODE_TEST={node.name}-{node.port}"
        key, _, value = self._marker.partition("=")
        env = {k: v for k, v in os.environ.items() if k != "PATH"}
        self._process = subprocess.Popen(
            [executable("flwr-caesar"), "node", str(node.key.parent / "node.toml")],
            # A unit's PATH, without this environment's commands.
            env={**env, "PATH": "/usr/bin:/bin", key: value, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            bufsize=1,
        )
        self.lines: list[str] = []
        self._new = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_family(self._process, self._marker, grace_s=30)

    def wait_for(self, words: str, *, after: int = 0) -> int:
        """Wait for a line with these words; return how many lines there were with it.

        Lines before the one of number `after` do not count.
        """
        deadline = time.monotonic() + PATIENCE
        with self._new:
            while True:
                for number, line in enumerate(self.lines[after:], after + 1):
                    if words in line:
                        return number
                assert time.monotonic() < deadline, "\n".join(self.lines)
                assert self._process.poll() is None, "\n".join(self.lines)
                self._new.wait(1.0)

    def said(self, words: str) -> bool:
        """Whether a line has these words."""
        return any(words in line for line in self.lines)

    def supernode(self) -> int:
        """Return the process id of its SuperNode."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            if "flower-supernode" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        raise AssertionError("no SuperNode")

    def stop(self) -> int:
        """Stop it as systemd does, and return its exit code."""
        self._process.terminate()
        return self._process.wait(60)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._new:
                self.lines.append(line.rstrip())
                self._new.notify_all()
