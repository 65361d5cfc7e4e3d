"""HTTP/1.1 of the gate: connections that ask for nothing give way to those that do.

uvicorn waits for a request's head for ever, and refuses everybody once it has as many
connections as it may: whoever opened so many and kept silent would hold off the fleet.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# From the first byte of a head, or from the connection's start, to the head's end.
HEAD_SECONDS = 30.0


class GateProtocol(H11Protocol):
    """One connection, which is closed if a head takes long, or for a newer one."""

    _head_timer: asyncio.TimerHandle | None = None

    @property
    def serves(self) -> bool:
        """Whether a request is being served."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; if that is one too many, the longest silent one ends."""
        super().connection_made(transport)
        self.silent_since = self.loop.time()
        self._wait_for_head()
        most = self.limit_concurrency
        # uvicorn refuses requests from `limit_concurrency` connections on.
        while most is not None and len(self.connections) >= most:
            silent = [c for c in self._all() if not c.serves and c is not self]
            if not silent:
                break
            longest = min(silent, key=lambda c: c.silent_since)
            # It is lost a moment later only, and others may come until then.
            self.connections.discard(longest)
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        super().data_received(data)
        if self.serves:
            self._head_came()
        elif self._head_timer is None:
            self._wait_for_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.silent_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_came()
        super().connection_lost(exc)

    def _all(self) -> list[GateProtocol]:
        return [c for c in self.connections if isinstance(c, GateProtocol)]

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.serves:
            self.transport.abort()
