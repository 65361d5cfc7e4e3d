"""A TCP relay on loopback that counts what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class CountingProxy:
    """Relay connections to a port of loopback; count bytes each way.

    Attributes
    ----------
    port : int
        Where it listens.
    sent, received : int
        Bytes from the clients, and to them, everything on the socket included.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.port: int = self._server.getsockname()[1]
        self.sent = 0
        self.received = 0

    def __enter__(self) -> CountingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    link = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                for source, sink, name in (
                    (client, link, "sent"),
                    (link, client, "received"),
                ):
                    threading.Thread(
                        target=self._relay, args=(source, sink, name), daemon=True
                    ).start()

    def _relay(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    setattr(self, name, getattr(self, name) + len(data))
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
