"""Telling systemd how a service is, by its ``sd_notify`` protocol."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the service manager; does nothing where there is none.

    Parameters
    ----------
    environment : mapping, optional
        Where ``NOTIFY_SOCKET`` may be; by default this process's. The variable is
        for this process and not for those it starts.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        env = os.environ if environment is None else environment
        self._address = env.get("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        """Tell that the service is started."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Tell in a line what the service is doing; ``systemctl status`` shows it."""
        self._send("STATUS=" + " ".join(text.split()))

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the service ends."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # Linux's abstract names
            address = "\0" + address[1:]
        # A service manager that does not listen is no reason to end.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out,
        ):
            out.sendto(message.encode(), address)
