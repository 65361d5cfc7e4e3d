"""Pulls of replies that are apart, so that a slow one holds up nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread

from flwr.app import Message
from flwr.serverapp import Grid

from flwr_caesar.flower import error_reply

_HELD_BYTES = 64 << 20
_MOST_INLINE = 64
_MOST_THREADS = 256
_LEAST_THREADS = 4
_PATIENCE = 0.25
_PATIENCES = 4
_LONGEST_PATIENCE = 2.0
_BYTES_PER_SECOND = 32e6


class Pulls:
    """Pull the replies of one phase.

    A reply is announced before it is uploaded, and Flower's pull of an announced reply
    returns when its sender has uploaded all of it; it can be neither foreseen nor
    interrupted. So each reply is pulled by a call of its own in a thread of its own.
    One that is there comes at once, and the next call is made when it has come. One
    that is still in transfer is left to its thread, and comes with a later sweep; if
    there is none, it is discarded. Threads are daemons and know this object only.

    Replies in transfer take places, of which large replies leave few. One that takes
    several times as long as a reply of its size should loses its place to others: a
    device that announces a reply and never uploads it, or a byte at a time, keeps
    nobody else from being asked.

    A Grid whose devices work when they are pulled, as in `InlineGrid`, has a true
    attribute `inline`: it is pulled in the caller's thread, in batches, in order.

    Parameters
    ----------
    grid : Grid
        Safe to be called by several threads, if it is not inline; Flower's are.

    Attributes
    ----------
    under_way : set of str
        Ids of the requests whose replies are being pulled.
    """

    def __init__(self, grid: Grid) -> None:
        self.under_way: set[str] = set()
        self._begun: dict[str, float] = {}
        self._grid = grid
        self._inline: bool = getattr(grid, "inline", False)
        self._ended: SimpleQueue[tuple[list[str], list[Message] | BaseException]]
        self._ended = SimpleQueue()

    def sweep(
        self, message_ids: Iterable[str], *, nbytes: int
    ) -> Iterator[Message | None]:
        """Ask once for each reply that is not under way, and yield those that came.

        Parameters
        ----------
        message_ids : iterable of str
            Of the requests.
        nbytes : int
            Bytes of a reply, for all that is known. 64 MB of them are pulled at once
            at the most, or 4 replies if that is more.

        Yields
        ------
        Message or None
            A reply, an error if its pull failed; `None` where one was left in transfer.
        """
        yield from self._came([], 0.0)
        least, most = (
            (1, _MOST_INLINE) if self._inline else (_LEAST_THREADS, _MOST_THREADS)
        )
        room = min(max(_HELD_BYTES // max(nbytes, 1), least), most)
        batch = room if self._inline else 1
        patience = min(_PATIENCE + nbytes / _BYTES_PER_SECOND, _LONGEST_PATIENCE)
        asked = [each for each in message_ids if each not in self.under_way]
        for start in range(0, len(asked), batch):
            if self._taken(max(_PATIENCES * patience, _LONGEST_PATIENCE)) >= room:
                return
            if len(self.under_way) >= _MOST_THREADS:
                return
            ids = asked[start : start + batch]
            self._begin(ids)
            yield from self._came(ids, patience)
            if not self.under_way.isdisjoint(ids):
                yield None

    def _taken(self, seconds: float) -> int:
        """Return how many replies have been in transfer for less than this."""
        since = time.monotonic() - seconds
        return sum(self._begun[each] > since for each in self.under_way)

    def _came(self, message_ids: list[str], seconds: float) -> Iterator[Message]:
        """Yield replies until these are pulled, or for some seconds."""
        until = time.monotonic() + seconds
        while True:
            left = max(until - time.monotonic(), 0.0)
            try:
                ids, replies = self._ended.get(timeout=left)
            except Empty:
                return
            self.under_way.difference_update(ids)
            if isinstance(replies, Exception):
                # A reply can be asked for only once: it is lost.
                why = str(replies) or type(replies).__name__
                reason = f"the reply could not be pulled: {why}"
                replies = [error_reply(each, reason) for each in ids]
            elif isinstance(replies, BaseException):  # the run was stopped
                raise replies
            while replies:
                yield replies.pop(0)
            if message_ids and self.under_way.isdisjoint(message_ids):
                return

    def _begin(self, message_ids: list[str]) -> None:
        self.under_way.update(message_ids)
        self._begun.update(dict.fromkeys(message_ids, time.monotonic()))
        if self._inline:
            self._pull(message_ids)
        else:
            name = f"pull-{message_ids[0]}"
            Thread(
                target=self._pull, args=(message_ids,), name=name, daemon=True
            ).start()

    def _pull(self, message_ids: list[str]) -> None:
        replies: list[Message] | BaseException
        try:
            replies = list(self._grid.pull_messages(message_ids))
        except BaseException as err:
            replies = err
        self._ended.put((message_ids, replies))
