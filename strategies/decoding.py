"""Replies that are decoded in threads, and finished in the order in which they came."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .exchange import Opened

_MOST_BYTES = 512 << 20
_LEAST_BYTES = 4 << 20
_COPIES = 4
_MOST_THREADS = 8

Timed = tuple[Any, float]


@dataclass
class UnderWay:
    """A reply that was accepted and is not finished.

    Parameters
    ----------
    opened : Opened
        The reply.
    sender : str
        Whose it is, as far as that is known.
    nbytes : int
        Of it, as it came.
    seconds : float
        For which it was worked on so far.
    future : Future, optional
        What `Opened.decode` returns, and for how many seconds it ran; `None` where it
        was not begun.
    """

    opened: Opened
    sender: str
    nbytes: int
    seconds: float
    future: Future[Timed] | None = None

    def finish(self) -> None:
        """Complete the reply.

        Raises
        ------
        CodecError
            If it cannot be used.
        """
        decode, finish = self.opened.decode, self.opened.finish
        if decode is None:
            return
        found, seconds = self.future.result() if self.future else _timed(decode)
        start = time.monotonic()
        if finish is not None:
            finish(found)
        self.seconds += seconds + time.monotonic() - start


class DecodingQueue:
    """Decodes replies in threads, as many at once as cores and memory allow.

    They are taken out in the order in which they were put in, whatever the threads do.
    The replies of a large model are decoded when they are taken, one at a time, and so
    are those of a small one, for which a thread is not worth it.

    Parameters
    ----------
    pool : Executor
        Runs the threads.
    threads : int
        How many it has.
    raw_bytes : int
        Of the model.
    """

    def __init__(self, pool: Executor, threads: int, raw_bytes: int) -> None:
        room = min(threads, _MOST_BYTES // (_COPIES * max(raw_bytes, 1)))
        self._room = room if raw_bytes >= _LEAST_BYTES else 1
        self._pool = pool
        self._items: deque[UnderWay] = deque()

    @classmethod
    @contextmanager
    def opened(cls, raw_bytes: int) -> Iterator[DecodingQueue]:
        """Open a queue whose threads end with the block."""
        threads = min(_cores(), _MOST_THREADS)
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            yield cls(pool, threads, raw_bytes)

    def __bool__(self) -> bool:
        """Whether a reply is in it."""
        return bool(self._items)

    def has(self, *, node_id: int = 0, sender: str = "") -> bool:
        """Whether a reply from a node, or of a sender, is in it."""
        return any(
            item.opened.reply.node_id == node_id or (sender and item.sender == sender)
            for item in self._items
        )

    def put(self, item: UnderWay) -> None:
        """Put a reply in, and begin to decode it."""
        if self._room > 1 and item.opened.decode is not None:
            item.future = self._pool.submit(_timed, item.opened.decode)
        self._items.append(item)

    def take(self) -> UnderWay:
        """Take the first one out."""
        return self._items.popleft()

    @property
    def is_due(self) -> bool:
        """Whether the first one is to be taken: there is no room, or it is decoded."""
        if not self._items:
            return False
        first = self._items[0].future
        return len(self._items) >= self._room or first is None or first.done()


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # where there is no Linux


def _timed(decode: Callable[[], Any]) -> Timed:
    start = time.monotonic()
    found = decode()
    return found, time.monotonic() - start
