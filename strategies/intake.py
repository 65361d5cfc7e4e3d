"""Replies as they arrive: each is opened, and counts or is refused with a reason."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from logging import WARNING
from typing import Any

from flwr.app import Message

from flwr_caesar.codec import CodecError
from flwr_caesar.flower import ErrorCode, log
from flwr_caesar.transport import FRAME_STYPE, message_nbytes, told_nbytes

from .exchange import Exchange, NotNowError, require_size
from .frame_messages import NO_MOD
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

    def read(self, phase: Phase, replies: Iterable[Message]) -> Iterator[Reply]:
        """Yield the replies that count, as they arrive; each is in `phase` by then."""
        kept = 0
        for each in replies:
            arrival = _arrival(each, phase.started)
            node_id, message = arrival.node_id, arrival.message
            if not self._recorder.is_expected(phase, node_id):
                log(WARNING, "Ignored an unexpected reply of node %d", node_id)
                continue
            start = time.monotonic()
            nbytes = message_nbytes(message.content) if message.has_content() else 0
            self._recorder.arrived(
                phase, node_id, seconds=arrival.seconds, bytes_up=nbytes
            )
            try:
                if message.has_error():
                    raise _error(message)
                told = told_nbytes(message.content)
                require_size(phase.requests[node_id], nbytes + told)
                reply = self._exchange.read(phase, node_id, message)
            except NotNowError as err:
                self._recorder.measured(phase, node_id, err.telemetry)
                self.refuse(phase, node_id, str(err), is_fault=False)
                continue
            except CodecError as err:
                self.refuse(phase, node_id, str(err))
                continue
            if not self._recorder.read(phase, reply):
                phase.doubtful.add(node_id)
                self._exchange.withdraw(node_id, "late")
                continue
            kept += nbytes
            if kept > _KEPT_BYTES:
                reply.source = None
            phase.replies[node_id] = reply
            if 0 < phase.longest < reply.length:
                phase.doubtful.add(node_id)
            yield reply
            if node_id in phase.replies:
                self._recorder.processed(phase, node_id, time.monotonic() - start)

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
