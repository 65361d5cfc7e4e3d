"""Replies as they arrive: each is opened, and counts or is refused with a reason."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from logging import WARNING
from typing import Any

from flwr.app import Message

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import ErrorCode, log
from flwr_caesar.transport import FRAME_STYPE, message_nbytes, told_nbytes

from .decoding import DecodingQueue, UnderWay
from .exchange import Exchange, NotNowError, require_size
from .frame_messages import NO_MOD, sender_of
from .grid import Arrival
from .phase import Phase, Reply
from .recorder import Recorder

_KEPT_BYTES = 256 << 20
_NOT_OF_THE_DEVICE = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
    }
)


class Intake:
    """Opens the replies to a phase and refuses those that cannot be used.

    Parameters
    ----------
    exchange : Exchange
        Reads a reply.
    recorder : Recorder
        Writes down what arrived, when, and what became of it.
    """

    def __init__(self, exchange: Exchange, recorder: Recorder) -> None:
        self._exchange = exchange
        self._recorder = recorder
        self._phase: Phase | None = None
        self._queue: DecodingQueue | None = None
        self._ready: deque[UnderWay] = deque()
        self._kept = 0

    def read(self, phase: Phase, replies: Iterable[Message]) -> Iterator[Reply]:
        """Yield the replies that count, as they arrive; each is in `phase` by then.

        They are decoded in threads, while others are waited for, and counted in the
        order in which they arrived.
        """
        raw_bytes = max((r.raw_bytes for r in phase.requests.values()), default=0)
        self._kept = 0
        with DecodingQueue.opened(raw_bytes) as self._queue:
            self._phase, self._ready = phase, deque()
            for each in replies:
                self._take_in(phase, each)
                while self._queue.is_due:
                    self._finish(phase, self._queue.take())
                yield from self._pass_on(phase)
            self.settle()
            yield from self._pass_on(phase)
        self._phase = self._queue = None

    def settle(self) -> None:
        """Decide on all replies that have arrived."""
        while self._phase and self._queue:
            self._finish(self._phase, self._queue.take())

    def _pass_on(self, phase: Phase) -> Iterator[Reply]:
        while self._ready:
            item = self._ready.popleft()
            start = time.monotonic()
            yield item.opened.reply
            node_id = item.opened.reply.node_id
            if node_id in phase.replies:
                seconds = item.seconds + time.monotonic() - start
                self._recorder.processed(phase, node_id, seconds)

    def _take_in(self, phase: Phase, each: Message | Arrival) -> None:
        """Judge a reply by what it says, and begin to decode it."""
        assert self._queue is not None
        arrival = _arrival(each, phase.started)
        node_id, message = arrival.node_id, arrival.message
        is_expected = self._recorder.is_expected(phase, node_id)
        if not is_expected or self._queue.has(node_id=node_id):
            log(WARNING, "Ignored an unexpected reply of node %d", node_id)
            return
        start = time.monotonic()
        nbytes = message_nbytes(message.content) if message.has_content() else 0
        self._recorder.arrived(phase, node_id, seconds=arrival.seconds, bytes_up=nbytes)
        sender = sender_of(message)
        if self._queue.has(sender=sender):  # which counts hangs on the other one
            self.settle()
        try:
            if message.has_error():
                raise _error(message)
            told = told_nbytes(message.content)
            require_size(phase.requests[node_id], nbytes + told)
            opened = self._exchange.accept(phase, node_id, message)
        except CodecError as err:
            self._refuse(phase, node_id, err)
            return
        self._queue.put(UnderWay(opened, sender, nbytes, time.monotonic() - start))

    def _finish(self, phase: Phase, item: UnderWay) -> None:
        """Take what was decoded; it counts, or is refused."""
        reply = item.opened.reply
        node_id = reply.node_id
        try:
            item.finish()
        except CodecError as err:
            self._refuse(phase, node_id, err)
            return
        if not self._recorder.read(phase, reply):
            phase.doubtful.add(node_id)
            self._exchange.withdraw(node_id, "late")
            return
        self._kept += item.nbytes
        if self._kept > _KEPT_BYTES:
            reply.source = None
        phase.replies[node_id] = reply
        if 0 < phase.longest < reply.length:
            phase.doubtful.add(node_id)
        self._ready.append(item)

    def _refuse(self, phase: Phase, node_id: int, err: CodecError) -> None:
        if isinstance(err, NotNowError):
            self._recorder.measured(phase, node_id, err.telemetry)
        self.refuse(phase, node_id, str(err), is_fault=not isinstance(err, NotNowError))

    def refuse(
        self, phase: Phase, node_id: int, reason: str, *, is_fault: bool = True
    ) -> None:
        """Take a reply out of a phase; `is_fault`: its device is to blame."""
        kept = self._recorder.refused(phase, node_id, reason)
        self._exchange.withdraw(node_id, kept)
        phase.replies.pop(node_id, None)
        phase.doubtful.add(node_id)
        if is_fault:
            phase.faults[node_id] = kept


class Waited(Iterator[Message]):
    """Passes replies on and counts the seconds that they were waited for.

    Parameters
    ----------
    replies : iterable
        Of messages, or of what `StreamingGrid` yields.

    Attributes
    ----------
    seconds : float
        So far.
    """

    def __init__(self, replies: Iterable[Any]) -> None:
        self._replies = iter(replies)
        self.seconds = 0.0

    def __next__(self) -> Message:
        start = time.monotonic()
        try:
            reply: Message = next(self._replies)
            return reply
        finally:
            self.seconds += time.monotonic() - start


def _error(message: Message) -> CodecError:
    """Return what an error reply says; without blame if the SuperLink wrote it."""
    error = message.error
    text = f"error {error.code}: {error.reason}"
    if error.code in _NOT_OF_THE_DEVICE:
        return NotNowError(text)
    if error.code == ErrorCode.MOD_FAILED_PRECONDITION:
        return CodecError(f"{text}. Put compression_mod first, before other mods")
    if FRAME_STYPE in str(error.reason):
        return CodecError(f"{NO_MOD} ({text})")
    return CodecError(text)


def _arrival(reply: Message | Arrival, start: float) -> Arrival:
    if isinstance(reply, Arrival):
        return reply
    return Arrival(reply.metadata.src_node_id, reply, time.monotonic() - start)
