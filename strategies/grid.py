"""A Grid that yields replies as they arrive."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from logging import INFO
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flwr_caesar.flower import NodeInfo, Run, log
from flwr_caesar.frozen import frozen
from flwr_caesar.transport import arrays_nbytes

from .pulls import Pulls

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 2.0


@frozen
class Arrival:
    """A reply, the node it answers for, and when it came.

    Parameters
    ----------
    node_id : int
        The node the request was sent to; an error that the SuperLink itself wrote
        has the SuperLink as its source, so the reply alone does not tell.
    message : Message
        The reply.
    seconds : float
        Since the request was handed to the SuperLink.
    """

    node_id: int
    message: Message
    seconds: float


class StreamingGrid(Grid):
    """Wrap a Grid so that `send_and_receive` yields each reply once it is there.

    Decoding then overlaps waiting, arrival times are the server's own clock, and no
    more than about 64 MB of replies, or 4 larger ones, are in memory at once. A reply
    that is still being uploaded holds up neither the others nor the end of the phase;
    see `Pulls`.

    Parameters
    ----------
    grid : Grid
        The Grid that Flower handed to the ServerApp.
    deadline : float, optional
        Seconds after which to stop waiting, besides the timeout of a call.
    quorum : float, optional
        Stop waiting once this fraction of the requests is answered by replies that
        are of use, see `expect`.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        deadline: float | None = None,
        quorum: float | None = None,
    ) -> None:
        self._grid = grid
        self._deadline = math.inf if deadline is None else deadline
        self._quorum = 1.0 if quorum is None else quorum
        self._largest_reply = 0
        self._most_bytes = math.inf
        self._doubtful: Set[int] = frozenset()
        self._settle: Callable[[], None] = _nothing
        self._unfinished: Counter[int] = Counter()

    def expect(
        self,
        most_bytes: float,
        doubtful: Set[int] = frozenset(),
        settle: Callable[[], None] | None = None,
    ) -> None:
        """Say what the next replies are like.

        Parameters
        ----------
        most_bytes : float
            No honest one is larger.
        doubtful : set of int
            Nodes whose replies do not count for the quorum. Whoever reads the replies
            adds to it before taking the next one, or when `settle` is called.
        settle : callable, optional
            Called where the quorum hangs on `doubtful`, and while nothing arrives.
        """
        self._most_bytes, self._doubtful = most_bytes, doubtful
        self._settle = settle or _nothing

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Run information."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return self._grid.create_message(
            content, message_type, dst_node_id, group_id, ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Get node ids."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Get nodes."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages."""
        return self._grid.push_messages(messages)

    def pull_messages(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        """Pull the replies that are there; newer Flowers may be asked without ids."""
        return self._grid.pull_messages(*args, **kwargs)

    def send_and_receive(  # type: ignore[override]
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        to_all: bool = False,
    ) -> Iterator[Arrival]:
        """Push messages and yield their replies as they arrive.

        Parameters
        ----------
        messages : iterable of Message
            Requests, at most one for each node.
        timeout : float, optional
            Seconds after which to stop waiting; `None` waits for every reply.
        to_all : bool
            Whether the quorum does not count.

        Yields
        ------
        Arrival
            In order of arrival; none for a request that the SuperLink refused or
            that was not answered before the deadline or the quorum.
        """
        requests = list(messages)
        patience = min(math.inf if timeout is None else timeout, self._deadline)
        enough = math.ceil((1.0 if to_all else self._quorum) * len(requests))
        answered: set[int] = set()

        def is_enough() -> bool:
            if len(answered) < enough:
                return False
            self._settle()
            return len(answered - self._doubtful) >= enough

        # Until a reply was seen, suppose that it is as large as in the last phase, or
        # in the first as its request.
        supposed = self._largest_reply or max(map(_nbytes, requests), default=0)
        seen = 0
        sent = time.monotonic()
        until = sent + patience
        ids = list(self._grid.push_messages(requests)) if requests else []
        waiting = {
            message_id: request.metadata.dst_node_id
            for message_id, request in zip(ids, requests, strict=False)
            if message_id
        }
        del requests
        pulls = Pulls(self._grid)
        pause = _FIRST_PAUSE
        while waiting:
            arrived = False
            start = time.monotonic()
            # Who did not finish an upload in earlier phases is asked after the others.
            asked = sorted(waiting, key=lambda each: self._unfinished[waiting[each]])
            nbytes = min(seen or supposed, self._most_bytes)
            for reply in pulls.sweep(asked, nbytes=int(nbytes)):
                if reply is None:
                    if is_enough() or time.monotonic() >= until:
                        break
                    continue
                node_id = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node_id is None:
                    continue
                arrived = True
                if not reply.has_error():
                    answered.add(node_id)
                self._unfinished.pop(node_id, None)
                seen = max(seen, _nbytes(reply))
                self._largest_reply = seen or self._largest_reply
                yield Arrival(node_id, reply, time.monotonic() - sent)
                del reply
            now = time.monotonic()
            if is_enough() or now >= until:
                break
            if waiting:
                pause = _FIRST_PAUSE if arrived else min(pause * 1.5, _LONGEST_PAUSE)
                if not arrived:  # asking takes half of the time at the most
                    self._settle()
                    pause = max(pause, now - start)
                time.sleep(min(pause, until - now))
        for message_id in pulls.under_way & waiting.keys():
            self._unfinished[waiting[message_id]] += 1
        if pulls.under_way:
            log(INFO, "Not waited for: %d replies in transfer", len(pulls.under_way))


def _nothing() -> None:
    """Settle nothing."""


def _nbytes(message: Message) -> int:
    return arrays_nbytes(message.content) if message.has_content() else 0
