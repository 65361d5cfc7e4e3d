"""Network namespaces joined by links of a given speed, on one Linux machine.

A machine of its own for the server and for each device, as far as addresses and links
go. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = "10.213.255.1"
UPLINK = "wan"
_UNITS = {"kbit": 1e-3, "mbit": 1.0, "gbit": 1e3}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(kbit|mbit|gbit)")


class NetworkError(RuntimeError):
    """The network cannot be made; the message says why."""


@dataclass(frozen=True)
class Link:
    """A device's link to the server.

    Parameters
    ----------
    number : int
        Counted from 0.
    mbit : float
        Megabits a second, in each direction.
    prefix : str
        Of the names of namespaces.
    """

    number: int
    mbit: float
    prefix: str

    @property
    def namespace(self) -> str:
        """Where the device is."""
        return f"{self.prefix}-{self.number}"

    @property
    def server_end(self) -> str:
        """The interface in the server's namespace."""
        return f"down{self.number}"

    @property
    def addresses(self) -> tuple[str, str]:
        """The addresses of the server's end and of the device's."""
        return f"10.213.{self.number}.1", f"10.213.{self.number}.2"


def parse_rate(text: str) -> float:
    """Return megabits a second of a rate as ``tc`` has it, such as ``2mbit``.

    Raises
    ------
    NetworkError
        If it is none.
    """
    found = _RATE.fullmatch(text.strip().lower())
    if not found or float(found[1]) == 0:
        raise NetworkError(f"{text!r} is no rate: write one such as 500kbit or 2mbit")
    return float(found[1]) * _UNITS[found[2]]


def why_not() -> str | None:
    """Return why this machine can make no namespaces; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root: use sudo"
    if not (shutil.which("ip") and shutil.which("tc")):
        return "there is no ip or tc: install iproute2"
    try:
        with namespace(f"fcprobe{os.getpid()}"):
            return None
    except NetworkError as err:
        return f"network namespaces cannot be made here: {err}"


def ip(*arguments: str, namespace: str = "") -> str:
    """Run one command of iproute2 and return what it printed.

    Raises
    ------
    NetworkError
        If it fails.
    """
    where = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run(
        [*where, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NetworkError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Make a network namespace with its loopback up, and delete it at the end."""
    ip("ip", "netns", "add", name)
    try:
        ip("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@contextmanager
def laid_out(links: Sequence[Link], server: str) -> Iterator[None]:
    """Make the server's namespace, one for each link, and the links.

    Parameters
    ----------
    links : sequence of Link
        One for each device.
    server : str
        The server's namespace; it has the address `SERVER`.
    """
    with ExitStack() as stack:
        stack.enter_context(namespace(server))
        ip("ip", "-n", server, "addr", "add", f"{SERVER}/32", "dev", "lo")
        for link in links:
            stack.enter_context(namespace(link.namespace))
            join(server, link)
        yield


def join(server: str, link: Link) -> None:
    """Join a device's namespace to the server's, at the link's speed both ways."""
    pair = [link.server_end, "netns", server, "type", "veth"]
    peer = ["peer", "name", UPLINK, "netns", link.namespace]
    ip("ip", "link", "add", *pair, *peer)
    ends = ((server, link.server_end), (link.namespace, UPLINK))
    # A bucket of a few packets: a rate is held from the first kilobytes on.
    shape = ["rate", f"{link.mbit}mbit", "burst", "8kb", "latency", "500ms"]
    for (where, device), address in zip(ends, link.addresses, strict=True):
        ip("ip", "-n", where, "addr", "add", f"{address}/24", "dev", device)
        ip("ip", "-n", where, "link", "set", "dev", device, "up")
        ip("tc", "-n", where, "qdisc", "add", "dev", device, "root", "tbf", *shape)
        # Packets of what the link carries, not of what the stack would hand over.
        if shutil.which("ethtool"):
            off = ["tso", "off", "gso", "off", "gro", "off"]
            ip("ethtool", "-K", device, *off, namespace=where)
    gateway = link.addresses[0]
    ip("ip", "-n", link.namespace, "route", "add", "default", "via", gateway)


def carried(link: Link, server: str) -> tuple[int, int]:
    """Return the bytes that a link carried down and up, headers of packets included."""
    listed = ip(
        "cat",
        f"/sys/class/net/{link.server_end}/statistics/tx_bytes",
        f"/sys/class/net/{link.server_end}/statistics/rx_bytes",
        namespace=server,
    )
    down, up = map(int, listed.split())
    return down, up


def delete_abandoned(prefix: str) -> None:
    """End and delete what is in the namespaces of processes that were killed.

    Parameters
    ----------
    prefix : str
        What comes before the process id in their names.
    """
    for line in ip("ip", "netns", "list").splitlines():
        found = re.match(rf"{re.escape(prefix)}(\d+)-", line)
        if found and not Path(f"/proc/{found[1]}").exists():
            name = line.split()[0]
            with contextlib.suppress(NetworkError):
                for pid in ip("ip", "netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                ip("ip", "netns", "del", name)
