"""``node.toml``: all that a device needs to know to take part."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from flwr_caesar.telemetry import NODE_VARIABLE

from .metered import Metered
from .policy import Limits
from .toml_table import NodeFileError, Table
from .whole_file import PRIVATE, write_whole

DEFAULT_PATH = Path("/etc/flwr-caesar/node.toml")
DEFAULT_PORT = 9094
ENVIRONMENT = NODE_VARIABLE

ConfigValue = bool | int | float | str
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONFIG_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_QUOTES = set('"\\\n')
_OWN_KEYS = ("partition-id", "num-partitions", "state-dir", "threads", "gpu")


@dataclass(frozen=True, kw_only=True)
class NodeFile:
    """What ``node.toml`` says.

    Parameters
    ----------
    address : str
        ``host:port`` of the server's gate, as its certificate names it.
    ca : Path
        Certificate of the authority that signed the server's.
    name : str
        What people call the device: letters, digits, ``.``, ``_`` and ``-``.
    key : Path
        Private key of the device, in OpenSSH format.
    partition_id, num_partitions : int
        Which part of the data it has, of how many.
    state_dir : Path
        Folder of its own for what must survive a restart.
    port : int
        On which its SuperNode serves its own processes, on loopback.
    node_config : mapping of str to bool, int, float or str
        What else the app is to find in its ``Context.node_config``.
    limits : Limits
        When the device trains, and with what.
    metered : Metered, optional
        When and how much it may use its link; `None` for a link that costs nothing.

    Raises
    ------
    NodeFileError
        If a value is out of range.
    """

    address: str
    ca: Path
    name: str
    key: Path
    partition_id: int
    num_partitions: int
    state_dir: Path
    port: int = DEFAULT_PORT
    node_config: Mapping[str, ConfigValue] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    metered: Metered | None = None

    def __post_init__(self) -> None:
        split_address(self.address)
        if not NAME.fullmatch(self.name):
            raise NodeFileError(
                f"[device] name is {self.name!r:.80}; write 1 to 64 letters, digits, "
                '".", "_" or "-", such as "jetson-07"'
            )
        if not 0 <= self.partition_id < self.num_partitions:
            raise NodeFileError(
                f"[device] partition-id is {self.partition_id} of num-partitions "
                f"{self.num_partitions}; partitions count from 0, so write one from 0 "
                f"to {self.num_partitions - 1}"
            )
        if not 1 <= self.port <= 65535:
            raise NodeFileError(
                f"[device] port is {self.port}; write one of 1 to 65535"
            )
        for key, value in self.node_config.items():
            _check_pair(key, value)
        if _QUOTES & set(str(self.state_dir)):
            raise NodeFileError(
                f"[device] state-dir is {str(self.state_dir)!r:.80}; write a path "
                "without quotes and backslashes, which Flower's --node-config cannot "
                "carry"
            )

    @property
    def host_port(self) -> tuple[str, int]:
        """Host and port of the server."""
        return split_address(self.address)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NodeFile:
        """Read a file; paths in it are relative to its folder.

        Raises
        ------
        NodeFileError
            If it cannot be read, has an unknown or a missing key, or a value that
            cannot be right. The message names the key and says what to write.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NodeFileError(
                f"{path} does not exist: `flwr-caesar join TICKET` writes it"
            ) from None
        except PermissionError:
            raise NodeFileError(f"{path} is not yours to read: use sudo") from None
        except (OSError, UnicodeDecodeError) as err:
            raise NodeFileError(f"{path} cannot be read: {err}") from err
        try:
            return cls._of(tomllib.loads(text), path.absolute().parent)
        except (tomllib.TOMLDecodeError, RecursionError) as err:
            raise NodeFileError(f"{path} is no TOML: {err}") from err
        except NodeFileError as err:
            raise NodeFileError(f"{path}: {err}") from err

    @classmethod
    def _of(cls, document: Mapping[str, Any], folder: Path) -> NodeFile:
        top = Table("", document)
        server, device = top.table("server"), top.table("device")
        config = top.table("node-config", required=False)
        policy = top.table("policy", required=False)
        metered = top.table("metered", required=False)
        top.end()
        read = cls(
            address=server.text("address", 'write "host:port"'),
            ca=folder / server.text("ca", 'write a path, such as "ca.crt"'),
            name=device.text("name", 'write a name, such as "jetson-07"'),
            key=folder / device.text("key", 'write a path, such as "device.key"'),
            partition_id=device.integer("partition-id", "write a number from 0"),
            num_partitions=device.integer("num-partitions", "write a number from 1"),
            state_dir=folder
            / device.text("state-dir", 'write a path, such as "state"'),
            port=device.integer("port", "write a port", default=DEFAULT_PORT),
            node_config=dict(config.values),
            limits=Limits.of(policy),
            metered=Metered.of(metered) if "metered" in document else None,
        )
        server.end()
        device.end()
        return read

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all; only its owner can read it.

        Paths inside the file's folder are written relative to it.
        """
        path = Path(path)
        folder = path.absolute().parent
        device: dict[str, Any] = {
            "name": self.name,
            "key": _relative(self.key, folder),
            "partition-id": self.partition_id,
            "num-partitions": self.num_partitions,
            "state-dir": _relative(self.state_dir, folder),
        }
        if self.port != DEFAULT_PORT:
            device["port"] = self.port
        tables = {
            "server": {"address": self.address, "ca": _relative(self.ca, folder)},
            "device": device,
            "node-config": dict(self.node_config),
            "policy": self.limits.to_table(),
        }
        document = {name: table for name, table in tables.items() if table}
        if self.metered is not None:
            document["metered"] = self.metered.to_table()
        write_whole(path, tomli_w.dumps(document), mode=PRIVATE)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 host is in brackets.

    Raises
    ------
    NodeFileError
        If it is something else.
    """
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    good = bare and "/" not in address and (":" not in bare or host == f"[{bare}]")
    if not (good and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise NodeFileError(
            f"[server] address is {address!r:.80}; write host:port without https://, "
            'such as "fleet.example:8443" or "[2001:db8::7]:8443"'
        )
    return bare, int(port)


def _check_pair(key: str, value: Any) -> None:
    if key in _OWN_KEYS:
        where = "[policy]" if key in ("threads", "gpu") else "[device]"
        raise NodeFileError(f"[node-config] {key} belongs to {where}; write it there")
    if not _CONFIG_KEY.fullmatch(key):
        raise NodeFileError(
            f"[node-config] has the key {key!r:.80}; write letters, digits, - and _"
        )
    if not isinstance(value, (bool, int, float, str)):
        raise NodeFileError(
            f"[node-config] {key} is {type(value).__name__}; Flower takes true or "
            "false, numbers and text"
        )
    if isinstance(value, str) and _QUOTES & set(value):
        raise NodeFileError(
            f"[node-config] {key} holds a quote, a backslash or a new line, which "
            "Flower's --node-config cannot carry; write it without"
        )


def _relative(path: Path, folder: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
